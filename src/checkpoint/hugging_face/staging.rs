//! A directory that is filled in one go: what is written stands in a folder inside it until all of it is there.

use std::fs;
use std::path::{Path, PathBuf};

use super::CONFIG_FILE;
use crate::checkpoint::storage;
use crate::error::{Error, Result};

/// The folder that holds what is not whole yet.
const PARTIAL: &str = ".partial";

/// A model directory in the making. Dropped before [`Staging::commit`], it leaves the directory as it was.
pub struct Staging {
    out: PathBuf,
    /// `out` was made here.
    new: bool,
}

impl Staging {
    /// Begins to fill `out`, which does not exist or is empty but for what an export that was killed left there.
    ///
    /// # Errors
    /// A directory that holds something, a file of that name, or a disk that refuses.
    pub fn begin(out: &Path) -> Result<Self> {
        let new = !out.exists();
        if !new {
            if !out.is_dir() {
                return Err(Error::file(out, "is a file: name a new directory for the export"));
            }
            let entries = fs::read_dir(out).map_err(Error::io("read", out))?;
            let names = entries.map(|entry| Ok(entry.map_err(Error::io("read", out))?.file_name()));
            if names.collect::<Result<Vec<_>>>()?.iter().any(|name| name != PARTIAL) {
                return Err(Error::file(out, "is not empty: choose a new directory for the export"));
            }
            let _ = fs::remove_dir_all(out.join(PARTIAL));
        }
        let staging = Self { out: out.to_path_buf(), new };
        storage::create_dir(&staging.dir())?;
        Ok(staging)
    }

    /// Where to write.
    pub fn dir(&self) -> PathBuf {
        self.out.join(PARTIAL)
    }

    /// Syncs what was written and moves it up, config.json last: without it, nobody takes the directory for a model.
    /// Returns the files' names, sorted, and their bytes in all.
    pub fn commit(self) -> Result<(Vec<String>, u64)> {
        let (files, _) = storage::walk(&self.dir())?;
        let mut names: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        let mut bytes = 0;
        for name in &names {
            let path = self.dir().join(name);
            storage::sync_file(&path)?;
            bytes += fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        }
        names.sort_by_key(|name| name == CONFIG_FILE);
        for name in &names {
            storage::rename(&self.dir().join(name), &self.out.join(name))?;
        }
        fs::remove_dir(self.dir()).map_err(Error::io("remove", self.dir()))?;
        storage::sync_dir(&self.out)?;
        storage::sync_dir(storage::parent(&self.out))?;
        names.sort();
        Ok((names, bytes))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a commit there is no such folder, and a directory with files in it stays.
        if fs::remove_dir_all(self.dir()).is_ok() && self.new {
            let _ = fs::remove_dir(&self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_filled_whole_or_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/model");
        let staging = Staging::begin(&out).unwrap();
        fs::write(staging.dir().join("weights"), "1234").unwrap();
        assert!(!out.join("weights").exists());
        drop(staging);
        assert!(!out.exists());

        // What a killed export left does not stand in the way.
        fs::create_dir_all(out.join(PARTIAL)).unwrap();
        fs::write(out.join(PARTIAL).join("half"), "").unwrap();
        let staging = Staging::begin(&out).unwrap();
        for name in ["config.json", "weights"] {
            fs::write(staging.dir().join(name), "1234").unwrap();
        }
        assert_eq!(staging.commit().unwrap(), (vec!["config.json".to_string(), "weights".to_string()], 8));
        assert_eq!(fs::read_dir(&out).unwrap().count(), 2);

        assert!(Staging::begin(&out).err().unwrap().to_string().contains("is not empty"));
        assert!(Staging::begin(&out.join("weights")).err().unwrap().to_string().contains("is a file"));
        // A directory that was there before stays.
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        drop(Staging::begin(&empty).unwrap());
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    }
}
