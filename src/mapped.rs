//! Files that are read through a memory map.
//!
//! Where such a file is cut short by another process, or its disk fails, the system ends whoever reads the part that is no
//! longer there by SIGBUS. Here that is one sentence that names the file, and exit code 1.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A file's bytes, read-only.
#[derive(Debug)]
pub struct Mapped {
    // Dropped first: what is unmapped must not be listed, since something else may be mapped there.
    #[cfg(unix)]
    _listed: fault::Listed,
    map: Mmap,
}

impl Mapped {
    /// Maps a whole file that `path` names in messages.
    ///
    /// # Errors
    /// The system cannot map it.
    pub fn new(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the map is read-only, and any bytes are valid. If another process rewrites the file meanwhile, what is
        // read is unspecified, which checksums tell; if it shortens the file, `fault` ends this process.
        let map = unsafe { Mmap::map(file) }?;
        #[cfg(not(unix))]
        let _ = path;
        Ok(Self {
            #[cfg(unix)]
            _listed: fault::Listed::new(&map, path),
            map,
        })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(unix)]
mod fault {
    use std::path::Path;
    use std::ptr;
    use std::sync::Once;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

    use nix::libc;
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    use crate::error::OneLine;

    /// Files that are listed at a time. A fault in one beyond them does what the signal did before.
    const SLOTS: usize = 1024;

    struct Slot {
        taken: AtomicBool,
        /// Addresses `start..end`; `start` is 0 while they are not set.
        start: AtomicUsize,
        end: AtomicUsize,
        name: AtomicPtr<String>,
    }

    static LISTED: [Slot; SLOTS] = [const {
        Slot {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            name: AtomicPtr::new(ptr::null_mut()),
        }
    }; SLOTS];

    /// What the signal did before; asked where an address is in no map of ours.
    static BEFORE: AtomicPtr<SigAction> = AtomicPtr::new(ptr::null_mut());

    /// A map's place in the list, until it is dropped.
    #[derive(Debug)]
    pub struct Listed(Option<usize>);

    impl Listed {
        pub fn new(map: &[u8], path: &Path) -> Self {
            static HANDLER: Once = Once::new();
            HANDLER.call_once(install);
            let free = LISTED.iter().position(|slot| !slot.taken.swap(true, Ordering::AcqRel));
            if let Some(slot) = free.and_then(|index| LISTED.get(index)) {
                let start = map.as_ptr() as usize;
                let name = OneLine(path.display()).to_string();
                slot.name.store(Box::into_raw(Box::new(name)), Ordering::Relaxed);
                slot.end.store(start + map.len(), Ordering::Relaxed);
                slot.start.store(start, Ordering::Release);
            }
            Self(free)
        }
    }

    impl Drop for Listed {
        fn drop(&mut self) {
            let Some(slot) = self.0.and_then(|index| LISTED.get(index)) else { return };
            slot.start.store(0, Ordering::Release);
            let name = slot.name.swap(ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: made by `Box::into_raw` in `new`. The handler takes a name only for an address within its map, which
            // nobody reads any more.
            drop(unsafe { Box::from_raw(name) });
            slot.taken.store(false, Ordering::Release);
        }
    }

    fn install() {
        // Rust's own handlers run on a stack of their own, which this one may use.
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
        // SAFETY: the handler calls nothing but what a signal handler may.
        if let Ok(before) = unsafe { sigaction(Signal::SIGBUS, &action) } {
            // Never freed: the handler may need it at any time.
            BEFORE.store(Box::into_raw(Box::new(before)), Ordering::Release);
        }
    }

    extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the system passes the information of this signal.
        let address = unsafe { (*info).si_addr() } as usize;
        let within = |slot: &&Slot| {
            let start = slot.start.load(Ordering::Acquire);
            start != 0 && (start..slot.end.load(Ordering::Relaxed)).contains(&address)
        };
        if let Some(slot) = LISTED.iter().find(within) {
            // SAFETY: set before `start` was, and not freed while somebody reads within the map.
            let name = unsafe { slot.name.load(Ordering::Relaxed).as_ref() };
            say(b"\nerror: ");
            say(name.map_or(b"a mapped file", |name| name.as_bytes()));
            say(b": was cut short while it was read, or its disk fails: bring the whole file back (copy it again, or make it \
                  again), and run the same command again\n");
            crate::exit::at_once(1);
        }
        // SAFETY: set once, never freed. The instruction is executed again, and what was there before sees to it.
        let before = unsafe { BEFORE.load(Ordering::Acquire).as_ref() };
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: an action that was in force before, or the system's own.
        let _ = unsafe { sigaction(Signal::SIGBUS, before.unwrap_or(&default)) };
    }

    fn say(text: &[u8]) {
        // SAFETY: writes bytes that live for the call; nothing can be done where it fails.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_files_than_the_list_holds_are_mapped_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, b"0123").unwrap();
        let file = File::open(&path).unwrap();
        let maps: Vec<_> = (0..1100).map(|_| Mapped::new(&file, &path).unwrap()).collect();
        assert!(maps.iter().all(|map| **map == *b"0123"));
        drop(maps);
        assert_eq!(*Mapped::new(&file, &path).unwrap(), *b"0123");
    }
}
