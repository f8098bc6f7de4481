//! One trainer a run directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use super::storage;
use crate::error::{Error, Result};

/// `is_held` takes the lock to see whether it can, so who is refused waits this long and tries once more.
const GLANCE: Duration = Duration::from_millis(50);

/// Held by the process that writes a run directory; the operating system gives it back when the process ends, however
/// it ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    exclusive: bool,
}

impl RunLock {
    /// Locks `RUN/.lock`, creating the directory and the file where they are missing.
    ///
    /// # Errors
    /// If another process holds it (the message has its process id), or the file cannot be created.
    pub fn acquire(run_dir: &Path) -> Result<Self> {
        storage::create_dir(run_dir)?;
        let path = run_dir.join(".lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(storage::write_error("open", &path))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(GLANCE);
                file.try_lock()
            }
            other => other,
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Windows lets nobody read a locked file: the message then does without the process id.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim().parse::<u32>().map(|id| format!(" (process {id})")).unwrap_or_default();
                return Err(Error::failed(format!(
                    "{} is in use by another trainer{holder}: wait until it ends, stop it, or choose another --out",
                    run_dir.display()
                )));
            }
            // Lustre and NFS mounted without locks: training there must still be possible.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Self { file, exclusive: false });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        // Only for the message above; the lock holds without it.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file, exclusive: true })
    }

    /// Whether a trainer holds the lock of a run directory; `None` where that cannot be told: no locks on that file system,
    /// or no permission.
    pub fn is_held(run_dir: &Path) -> Option<bool> {
        let path = run_dir.join(".lock");
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(false),
            other => other.ok()?,
        };
        match file.try_lock_shared() {
            Ok(()) => {
                let _ = file.unlock();
                Some(false)
            }
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        }
    }

    /// False where the file system has no locks, so that a second trainer would go unnoticed: worth a warning.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

impl Drop for RunLock {
    /// Closing alone is not enough: a process that was forked meanwhile holds the file, and its lock, until it becomes another
    /// program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_trainer_is_refused_until_the_first_ends() {
        let run = tempfile::tempdir().unwrap();
        let dir = run.path().join("new").join("run");
        assert_eq!(RunLock::is_held(&dir), Some(false));
        let first = RunLock::acquire(&dir).unwrap();
        assert!(first.is_exclusive());
        assert_eq!(RunLock::is_held(&dir), Some(true));
        let message = RunLock::acquire(&dir).unwrap_err().to_string();
        assert!(message.contains("in use by another trainer"), "{message}");
        #[cfg(unix)]
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        assert_eq!(RunLock::is_held(&dir), Some(false));
        RunLock::acquire(&dir).unwrap();
    }
}
