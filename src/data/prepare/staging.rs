//! The output directory: built beside its place under another name, and renamed into it once it is whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::data::manifest::{MANIFEST, Manifest};
use crate::error::{Error, OneLine, Result};
use crate::report::voice::say;

/// What this process has to remove if it is ended.
static AT_WORK: Mutex<AtWork> = Mutex::new(AtWork { unfinished: Vec::new(), committed: false });

struct AtWork {
    /// Directories under construction, each with its lock file.
    unfinished: Vec<(PathBuf, PathBuf)>,
    /// Whether a data set has come into place.
    committed: bool,
}

fn at_work() -> MutexGuard<'static, AtWork> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is under construction and then calls `end`, which is to end the process: until it returns, no directory is
/// begun, put into place or dropped. Does nothing once a data set is in place.
pub fn abandon(end: impl FnOnce()) {
    let at_work = at_work();
    if at_work.committed {
        return;
    }
    for (dir, lock) in &at_work.unfinished {
        // Again where a shard was begun meanwhile. What cannot be removed here, the next run removes.
        let _ = (0..10).find(|_| remove_dir(dir).is_ok());
        let _ = fs::remove_file(lock);
    }
    end();
}

/// A directory under construction. Dropped before [`Staging::commit`], it is removed; left behind by a killed run, the
/// next run removes it.
pub struct Staging {
    out: PathBuf,
    dir: PathBuf,
    replaced: PathBuf,
    lock_path: PathBuf,
    /// Held until the end, so that two runs cannot build the same data set at once.
    lock: Option<File>,
}

impl Staging {
    /// Checks that `out` may be written and makes the directory to build in.
    ///
    /// # Errors
    /// `out` holds something other than an earlier data set, or one and `force` is not set; it is a link to nothing, or a
    /// mounted file system; another run is at work on it; the directory beside it cannot be made.
    pub fn begin(out: &Path, force: bool) -> Result<Self> {
        let out = &behind_link(out)?;
        let (parent, name) = match (out.parent(), out.file_name()) {
            (Some(parent), Some(name)) => (parent, name.to_string_lossy().into_owned()),
            _ => return Err(Error::file(out, "expected the name of a directory to make: choose another --out")),
        };
        // Nothing is made where it would be refused.
        check_replaceable(out, force)?;
        check_no_mount(out)?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let beside = |what: &str| parent.join(format!(".{name}.{what}"));
        let lock_path = beside("lock");
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::file(out, "another `trainer prepare` is writing it: wait for that one to end"));
            }
            // A file system without locks: carry on, two runs at once are the user's to avoid there.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &lock_path)(error)),
        }
        let staging = Self {
            out: out.to_path_buf(),
            dir: beside("partial"),
            replaced: beside("replaced"),
            lock_path,
            lock: Some(lock),
        };
        staging.restore()?;
        check_replaceable(out, force)?;
        remove_dir(&staging.dir)?;
        let mut at_work = at_work();
        at_work.unfinished.push((staging.dir.clone(), staging.lock_path.clone()));
        let made = fs::create_dir(&staging.dir).map_err(Error::io("create", &staging.dir));
        drop(at_work);
        made.map(|()| staging)
    }

    /// Puts back the data set of a run that was killed between the two renames of `commit`.
    fn restore(&self) -> Result<()> {
        if !self.replaced.join(MANIFEST).exists() {
            return Ok(());
        }
        // An empty directory is as good as none; any other stays.
        let _ = fs::remove_dir(&self.out);
        if fs::symlink_metadata(&self.out).is_ok() {
            return Ok(());
        }
        fs::rename(&self.replaced, &self.out).map_err(Error::io("restore", &self.out))?;
        say(&format!(
            "{}: put back the data set that an interrupted `trainer prepare --force` had moved aside",
            OneLine(self.out.display())
        ));
        Ok(())
    }

    /// The directory to build in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves the finished directory into place. An earlier data set is first moved aside and only removed afterwards.
    pub fn commit(self, force: bool) -> Result<()> {
        let mut at_work = at_work();
        let committed = self.put_into_place(force);
        at_work.committed |= committed.is_ok();
        // Dropping `self` takes it again.
        drop(at_work);
        committed
    }

    fn put_into_place(&self, force: bool) -> Result<()> {
        // What lies there may have changed since `begin`.
        check_replaceable(&self.out, force)?;
        sync_dir(&self.dir)?;
        if self.out.join(MANIFEST).exists() {
            remove_dir(&self.replaced)?;
            fs::rename(&self.out, &self.replaced).map_err(Error::io("replace", &self.out))?;
        } else if self.out.exists() {
            fs::remove_dir(&self.out).map_err(Error::io("replace", &self.out))?;
        }
        fs::rename(&self.dir, &self.out).map_err(|error| {
            let _ = fs::rename(&self.replaced, &self.out);
            Error::io("write", &self.out)(error)
        })?;
        if let Some(parent) = self.dir.parent() {
            sync_dir(parent)?;
        }
        remove_dir(&self.replaced)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let mut at_work = at_work();
        at_work.unfinished.retain(|(dir, _)| *dir != self.dir);
        // After a commit there is nothing left under this name. What cannot be removed here, the next run removes.
        let _ = fs::remove_dir_all(&self.dir);
        // Windows removes no open file; while the lock is held elsewhere, no run gets past `begin`.
        if cfg!(not(unix)) {
            self.lock = None;
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// The folder that a link leads to, so that it is replaced and not the link; any other path as it is.
///
/// # Errors
/// A link to nothing.
fn behind_link(out: &Path) -> Result<PathBuf> {
    match fs::symlink_metadata(out) {
        Ok(found) if found.is_symlink() => fs::canonicalize(out)
            .map_err(|_| Error::file(out, "is a link to what is not there: remove it, or choose another --out")),
        _ => Ok(out.to_path_buf()),
    }
}

/// # Errors
/// A file system is mounted at `out`: no other folder can be put in its place.
fn check_no_mount(out: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
        let above = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if device(out).is_some_and(|own| device(above).is_some_and(|above| above != own)) {
            let what = "is where a file system is mounted, which no folder can replace: choose a folder in it as --out";
            return Err(Error::file(out, what));
        }
    }
    let _ = out;
    Ok(())
}

/// `out` may be missing, empty, or (with `force`) an earlier data set and nothing else.
fn check_replaceable(out: &Path, force: bool) -> Result<()> {
    let entries = match fs::read_dir(out) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            // The directory itself, or one above it.
            let file = out.ancestors().find(|path| path.exists()).unwrap_or(out);
            return Err(Error::file(file, "is a file, where a folder is needed: choose another --out"));
        }
        Err(error) => return Err(Error::io("read", out)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(Error::io("read", out))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if names.is_empty() {
        return Ok(());
    }
    let of_a_data_set = |name: &String| {
        let shard = name.ends_with(".bin") && (name.starts_with("train-") || name.starts_with("val-"));
        shard || [MANIFEST, "tokenizer.json", "tokenizer_config.json"].contains(&name.as_str())
    };
    let stranger = names.iter().find(|name| !of_a_data_set(name));
    if stranger.is_some() || !matches!(Manifest::read(out), Ok(Some(_))) {
        return Err(Error::file(
            out,
            format!(
                "holds something other than an earlier data set ({}), which is not replaced: choose another --out, or empty \
                 it yourself",
                stranger.unwrap_or(&names[0])
            ),
        ));
    }
    if force {
        return Ok(());
    }
    Err(Error::file(out, "already holds a data set: choose another --out, or replace it with --force"))
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable, where the platform can: elsewhere (Windows) renames are journalled.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))?;
    }
    Ok(())
}
