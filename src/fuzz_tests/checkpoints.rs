//! A checkpoint's own files, and the pointers of a run.

use std::fs;
use std::path::Path;

use super::Target;
use crate::checkpoint::layout::{Pointer, step_dir};
use crate::checkpoint::{best, find_latest, manifest, resolve_model_dir};
use crate::train::save::{LoopState, STATE};
use crate::{fixtures, verify};

/// The first checkpoint of a run, without the run.
fn checkpoint(dir: &Path) {
    let run = tempfile::tempdir().unwrap();
    fixtures::run(run.path());
    copy(&step_dir(run.path(), 2), dir);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// The checksum of a MANIFEST's lines.
fn mend(text: &mut Vec<u8>) {
    let lines = String::from_utf8_lossy(text).into_owned();
    if let Some((body, _)) = lines.rsplit_once("\nend ") {
        let (body, files) = (format!("{body}\n"), body.lines().count().saturating_sub(1));
        *text = format!("{body}end {files} files {:08x}\n", crc32fast::hash(body.as_bytes())).into_bytes();
    }
}

#[test]
fn manifests_of_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path());
    let whole = fs::read(dir.path().join(manifest::FILE_NAME)).unwrap();
    let target = Target { finish: mend, ..Target::new(file!(), manifest::FILE_NAME, vec![whole]) };
    target.run(checkpoint, |path| {
        let dir = path.parent().unwrap();
        let verified = manifest::verify(dir);
        assert_eq!(verify::verify(dir, &()).unwrap().damaged().next().is_none(), verified.is_ok());
        verified.map_err(|error| crate::error::Error::file(path, error.to_string()))
    });
}

#[test]
fn states_of_checkpoints() {
    let with_scale = String::from_utf8(fixtures::state(4))
        .unwrap()
        .replace("\"loss_scale\": null", "\"loss_scale\": {\"scale\": 65536.0, \"clean_steps\": 3, \"hysteresis\": 2}");
    let files = vec![fixtures::state(2), with_scale.into_bytes()];
    Target::new(file!(), STATE, files).run(
        |_| {},
        |path| {
            let mut state = LoopState::read(path.parent().unwrap())?;
            // What going on does to it.
            (state.step, state.tokens) = (state.step + 1, state.tokens + 1024);
            if let Some(scale) = &mut state.loss_scale {
                scale.clean();
                scale.overflowed();
            }
            Ok(())
        },
    );
}

#[test]
fn pointers_of_runs() {
    let run = tempfile::tempdir().unwrap();
    fixtures::run(run.path());
    for pointer in Pointer::ALL {
        let path = pointer.path(run.path());
        let whole = fs::read(&path).unwrap();
        Target::new(file!(), pointer.name(), vec![whole.clone()]).run(
            |_| {},
            |edited| {
                fs::copy(edited, &path).unwrap();
                let named = pointer.read(run.path()).unwrap();
                let report = verify::verify(run.path(), &()).unwrap();
                assert_eq!(report.damaged().next().is_none(), [Some(2), Some(4)].contains(&named));
                // Either is there, or the newest; `best` has no other to give.
                assert!(find_latest(run.path()).unwrap().is_some());
                let _ = best(run.path()).map_err(|error| error.to_string());
                resolve_model_dir(&path).map(|_| ())
            },
        );
        fs::write(&path, whole).unwrap();
    }
}
