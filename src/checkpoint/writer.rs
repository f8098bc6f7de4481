//! Writing one checkpoint: beside its place, synced, then renamed into it.

use std::fs;
use std::path::{Path, PathBuf};

use super::layout::{self, Pointer, REPLACED, TEMPORARY};
use super::manifest::{self, Manifest};
use super::retention::discard;
use super::storage;
use super::tensor_file::{TensorEntry, write_tensor_file};
use crate::error::{Error, Result};

/// A checkpoint being written. Dropped without [`commit`](Self::commit), it leaves nothing behind.
///
/// The caller holds the run's [`RunLock`](super::RunLock). Several threads may write files of one checkpoint.
#[derive(Debug)]
pub struct CheckpointWriter {
    run_dir: PathBuf,
    step: u64,
    temporary: PathBuf,
    /// Another process began it, and commits it.
    guest: bool,
}

impl CheckpointWriter {
    /// Makes an empty `RUN/checkpoints/.tmp-step-NNNNNNNN`, on the disk of the final place so that a rename suffices.
    pub fn begin(run_dir: &Path, step: u64) -> Result<Self> {
        let temporary = layout::checkpoints_dir(run_dir).join(format!("{TEMPORARY}{}", layout::step_name(step)));
        let writer = Self { run_dir: run_dir.to_path_buf(), step, temporary, guest: false };
        writer.explained((|| {
            if writer.temporary.exists() {
                fs::remove_dir_all(&writer.temporary).map_err(storage::write_error("remove", &writer.temporary))?;
            }
            storage::create_dir(&writer.temporary)
        })())?;
        Ok(writer)
    }

    /// Puts files into a checkpoint that another process has begun. It must have begun, and may commit only once every
    /// guest is done; dropping a guest's writer leaves the files to it.
    pub fn join(run_dir: &Path, step: u64) -> Self {
        let temporary = layout::checkpoints_dir(run_dir).join(format!("{TEMPORARY}{}", layout::step_name(step)));
        Self { run_dir: run_dir.to_path_buf(), step, temporary, guest: true }
    }

    /// The directory to put files into. Everything in it becomes part of the checkpoint.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// The directory of the Hugging Face model inside it, created.
    pub fn model_dir(&self) -> Result<PathBuf> {
        let dir = self.temporary.join("model");
        self.explained(storage::create_dir(&dir))?;
        Ok(dir)
    }

    /// Has the Hugging Face model written into its directory.
    pub fn write_model(&self, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let dir = self.model_dir()?;
        self.explained(write(&dir))
    }

    /// Writes one file; `name` may have folders, separated by `/`.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.place(name)?;
        self.explained(fs::write(&path, bytes).map_err(storage::write_error("write", &path)))
    }

    /// Writes one safetensors file, a tensor at a time (optimizer shards).
    pub fn write_tensors(&self, name: &str, entries: Vec<TensorEntry<'_>>) -> Result<()> {
        let path = self.place(name)?;
        self.explained(write_tensor_file(&path, entries, &[]))
    }

    /// Makes the checkpoint complete: checksums in MANIFEST, everything synced, renamed to `step-NNNNNNNN`, `latest`
    /// pointed at it. An earlier checkpoint of the same step is replaced. Returns the final directory.
    ///
    /// # Errors
    /// On any failure the temporary directory is removed, `latest` is as it was, and what it names is whole.
    pub fn commit(self) -> Result<PathBuf> {
        self.explained(self.sync().and_then(|()| self.put_in_place()))
    }

    fn sync(&self) -> Result<()> {
        let manifest = Manifest::of_synced(&self.temporary)?;
        storage::write_synced(&self.temporary.join(manifest::FILE_NAME), manifest.to_text().as_bytes())?;
        for dir in storage::walk(&self.temporary)?.1 {
            storage::sync_dir(&self.temporary.join(dir))?;
        }
        Ok(())
    }

    // Directories cannot be exchanged in one call on every platform, so an earlier checkpoint of this step is set aside
    // first. Killed in between, readers find it under that name, and `clean_stale` puts it back.
    fn put_in_place(&self) -> Result<PathBuf> {
        let checkpoints = layout::checkpoints_dir(&self.run_dir);
        let place = layout::step_dir(&self.run_dir, self.step);
        let aside = checkpoints.join(format!("{REPLACED}{}", layout::step_name(self.step)));
        if place.exists() {
            discard(&aside)?;
            storage::rename(&place, &aside)?;
            storage::sync_dir(&checkpoints)?;
        }
        if let Err(error) = storage::rename(&self.temporary, &place) {
            if aside.exists() {
                storage::rename(&aside, &place)?;
            }
            return Err(error);
        }
        storage::sync_dir(&checkpoints)?;
        Pointer::Latest.write(&self.run_dir, self.step)?;
        // The new one is saved: a leftover that cannot be removed yet (open on Windows) is for `clean_stale`.
        let _ = discard(&aside);
        Ok(place)
    }

    /// The path of a file in the temporary directory, its folders created; refuses names that lead out of it.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let relative: PathBuf = name.split('/').collect();
        let plain = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(['\\', ':', '\n', '\r']);
        if !name.split('/').all(plain) || name == manifest::FILE_NAME {
            return Err(Error::failed(format!("\"{name}\" cannot be the name of a checkpoint file")));
        }
        let path = self.temporary.join(relative);
        self.explained(storage::create_dir(storage::parent(&path)))?;
        Ok(path)
    }

    fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let step = self.step;
            Error::failed(format!("the checkpoint of step {step} was not saved: {error}; earlier ones are intact"))
        })
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        // After a commit it is gone already. What cannot be removed now, `clean_stale` removes at the next start.
        if !self.guest {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{latest, verify};
    use super::*;

    #[test]
    fn a_commit_is_whole_and_an_abandoned_writer_leaves_nothing() {
        let run = tempfile::tempdir().unwrap();
        let writer = CheckpointWriter::begin(run.path(), 5).unwrap();
        writer.write_file("state.json", b"{\"step\":5}").unwrap();
        writer.write_file("model/deep/er.txt", b"x").unwrap();
        writer.write_tensors("optimizer.safetensors", vec![TensorEntry::f32("m", vec![2], &[1.0, 2.0])]).unwrap();
        for name in ["", "../x", "/x", "a/../../x", "MANIFEST", "./x", "a//x", "a/", "C:x", "a\nb"] {
            assert!(writer.write_file(name, b"").is_err(), "{name}");
        }
        assert_eq!(latest(run.path()).unwrap(), None);
        let dir = writer.commit().unwrap();
        verify(&dir).unwrap();
        assert_eq!(latest(run.path()).unwrap(), Some(dir));

        let abandoned = CheckpointWriter::begin(run.path(), 6).unwrap();
        abandoned.write_file("state.json", b"{}").unwrap();
        drop(abandoned);
        let mut names = layout::entry_names(run.path()).unwrap();
        names.sort();
        assert_eq!(names, ["latest", "step-00000005"]);
    }

    #[test]
    fn the_same_step_again_replaces_the_earlier_one() {
        let run = tempfile::tempdir().unwrap();
        for content in ["first", "second"] {
            let writer = CheckpointWriter::begin(run.path(), 5).unwrap();
            writer.write_file(content, content.as_bytes()).unwrap();
            writer.commit().unwrap();
        }
        let dir = latest(run.path()).unwrap().unwrap();
        assert!(dir.join("second").is_file() && !dir.join("first").exists());
        assert_eq!(layout::entry_names(run.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_run_directory_that_cannot_be_made_is_one_clear_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run");
        fs::write(&file, b"a file where a directory is needed").unwrap();
        let error = CheckpointWriter::begin(&file, 1).unwrap_err();
        assert!(error.to_string().starts_with("the checkpoint of step 1 was not saved: cannot create"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }

    /// A tokenizer.json copied from a shared, read-only place keeps its mode.
    #[test]
    fn read_only_files_can_be_part_of_a_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let writer = CheckpointWriter::begin(run.path(), 1).unwrap();
        writer.write_file("tokenizer.json", b"{}").unwrap();
        let path = writer.path().join("tokenizer.json");
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        if cfg!(unix) {
            permissions.set_readonly(true);
        }
        fs::set_permissions(&path, permissions).unwrap();
        verify(&writer.commit().unwrap()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_run_directory_leaves_the_last_checkpoint() {
        use std::os::unix::fs::PermissionsExt;
        let run = tempfile::tempdir().unwrap();
        let writer = CheckpointWriter::begin(run.path(), 1).unwrap();
        writer.write_file("state.json", b"{}").unwrap();
        let first = writer.commit().unwrap();
        let checkpoints = layout::checkpoints_dir(run.path());
        fs::set_permissions(&checkpoints, fs::Permissions::from_mode(0o555)).unwrap();
        if fs::File::create(checkpoints.join("probe")).is_ok() {
            eprintln!("SKIPPED: this user (root?) may write to read-only directories");
            return;
        }
        let error = CheckpointWriter::begin(run.path(), 2).unwrap_err().to_string();
        fs::set_permissions(&checkpoints, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(error.contains("may not write there"), "{error}");
        assert_eq!(latest(run.path()).unwrap(), Some(first));
    }
}
