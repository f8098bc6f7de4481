//! Finding a checkpoint or a model from what the user named.

use std::path::{Path, PathBuf};

use super::layout::{self, Pointer};
use super::manifest;
use crate::error::{Error, Result};

/// The checkpoint that a run goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub dir: PathBuf,
    /// For the user, where it is not simply the one that the pointer names.
    pub note: Option<String>,
}

/// The checkpoint that `latest` names, verified; `None` where the run has none. See [`find_latest`].
pub fn latest(run_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(find_latest(run_dir)?.map(|found| found.dir))
}

/// The checkpoint that `best` names, verified; `None` where none is marked.
pub fn best(run_dir: &Path) -> Result<Option<PathBuf>> {
    let Some(step) = Pointer::Best.read(run_dir)? else { return Ok(None) };
    let dir = layout::existing_dir(run_dir, step).unwrap_or_else(|| layout::step_dir(run_dir, step));
    manifest::verify(&dir)?;
    Ok(Some(dir))
}

/// The checkpoint that `latest` names or, if the pointer is missing or names nothing, the newest that verifies.
///
/// # Errors
/// If the named checkpoint does not verify: going back to an older one loses work, so that is the user's decision, and
/// the message names the next older good one and how to take it. Also if checkpoints exist and none verifies.
pub fn find_latest(run_dir: &Path) -> Result<Option<Found>> {
    find_latest_with(run_dir, "")
}

fn find_latest_with(run_dir: &Path, part: &str) -> Result<Option<Found>> {
    let named = Pointer::Latest.read(run_dir)?;
    if let Some((step, dir)) = named.and_then(|step| Some((step, layout::existing_dir(run_dir, step)?))) {
        return match manifest::verify_part(&dir, part) {
            Ok(()) => Ok(Some(Found { dir, note: None })),
            Err(error) => Err(refusal(run_dir, step, &dir, &error)),
        };
    }
    let steps = layout::list_steps(run_dir)?;
    let pointer = Pointer::Latest.path(run_dir);
    let mut damaged = Vec::new();
    for step in steps.into_iter().rev() {
        let Some(dir) = layout::existing_dir(run_dir, step) else { continue };
        if let Err(error) = manifest::verify_part(&dir, part) {
            damaged.push(error.to_string());
            continue;
        }
        let mut note = format!("{} names no checkpoint: taking {}", pointer.display(), dir.display());
        if !damaged.is_empty() {
            note += &format!(", since {}", damaged.join("; "));
        }
        return Ok(Some(Found { dir, note: Some(note) }));
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    let what = format!("no checkpoint is whole: {}; restore one from a copy, or start a new run", damaged.join("; "));
    Err(Error::file(layout::checkpoints_dir(run_dir), what))
}

fn refusal(run_dir: &Path, step: u64, dir: &Path, error: &Error) -> Error {
    let older = layout::list_steps(run_dir)
        .unwrap_or_default()
        .into_iter()
        .rev()
        .filter(|other| *other < step)
        .find(|other| layout::existing_dir(run_dir, *other).is_some_and(|dir| manifest::verify(&dir).is_ok()));
    let what = match (error, older) {
        // Only damage can be got round by an older checkpoint; an unreadable disk is its own sentence.
        (Error::File { what, .. }, Some(older)) => {
            format!(
                "{what}. The next older whole checkpoint is {}: to go on from it, write its name into {}",
                layout::step_name(older),
                Pointer::Latest.path(run_dir).display()
            )
        }
        (Error::File { what, .. }, None) => {
            format!("{what}. There is no older whole checkpoint: restore it from a copy")
        }
        (other, _) => other.to_string(),
    };
    Error::file(dir, what)
}

/// A model directory and, where one was found with it, the tokenizer that the model was trained with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLocation {
    /// A Hugging Face directory: config.json and safetensors.
    pub model: PathBuf,
    /// A Hugging Face tokenizer.json.
    pub tokenizer: Option<PathBuf>,
    /// The checkpoint of a run that holds the model.
    pub checkpoint: Option<PathBuf>,
}

/// Where the model is that the user named: a run directory (its latest checkpoint), a checkpoint directory, one of the
/// pointer files `RUN/checkpoints/{latest,best}`, or a Hugging Face directory itself.
///
/// Models inside a checkpoint are verified against its MANIFEST. The tokenizer is looked for in the model directory, then
/// in the checkpoint, then in the run directory.
pub fn resolve_model_dir(path: &Path) -> Result<ModelLocation> {
    if !path.exists() {
        return Err(Error::input(format!(
            "{} does not exist: expected a run directory, a checkpoint or a Hugging Face model directory",
            path.display()
        )));
    }
    if let Some(checkpoint) = pointed_at(path)? {
        return in_checkpoint(&checkpoint);
    }
    if path.join("config.json").is_file() {
        let checkpoint = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let checkpoint = checkpoint.filter(|dir| path.ends_with("model") && dir.join("state.json").is_file());
        return Ok(ModelLocation { model: path.to_path_buf(), tokenizer: tokenizer_in(&[path]), checkpoint });
    }
    if path.join("model").is_dir() {
        return in_checkpoint(path);
    }
    if layout::checkpoints_dir(path).is_dir() {
        let found = find_latest_with(path, "model/")?.ok_or_else(|| no_checkpoint(path))?;
        return in_checkpoint(&found.dir);
    }
    // What a run writes before its first checkpoint.
    if [".lock", "metrics.jsonl"].into_iter().any(|name| path.join(name).is_file()) {
        return Err(no_checkpoint(path));
    }
    Err(Error::input(format!(
        "{} is no model: expected a run directory (with checkpoints/), a checkpoint (with model/) or a Hugging Face \
         directory (with config.json)",
        path.display()
    )))
}

fn no_checkpoint(run_dir: &Path) -> Error {
    Error::input(format!(
        "{} is a run that has no checkpoint yet: let it train until it saves one (after checkpoint.every steps, and at its \
         end)",
        run_dir.display()
    ))
}

/// The checkpoint that a pointer file names.
fn pointed_at(path: &Path) -> Result<Option<PathBuf>> {
    let pointer = Pointer::ALL.into_iter().find(|pointer| path.file_name().is_some_and(|name| name == pointer.name()));
    let (Some(pointer), true, Some(checkpoints)) = (pointer, path.is_file(), path.parent()) else { return Ok(None) };
    let run_dir = checkpoints.join("..");
    let step = pointer.read(&run_dir)?;
    match step.and_then(|step| layout::existing_dir(&run_dir, step)) {
        Some(dir) => Ok(dir.file_name().map(|name| checkpoints.join(name))),
        None => Err(Error::file(path, "names no checkpoint that exists: name a checkpoint directory instead")),
    }
}

fn in_checkpoint(checkpoint: &Path) -> Result<ModelLocation> {
    manifest::verify_part(checkpoint, "model/")?;
    let model = checkpoint.join("model");
    if !model.join("config.json").is_file() {
        return Err(Error::file(checkpoint, "holds no model: expected model/config.json"));
    }
    let run_dir = checkpoint.join("..").join("..");
    let tokenizer = tokenizer_in(&[&model, checkpoint, &run_dir]);
    Ok(ModelLocation { model, tokenizer, checkpoint: Some(checkpoint.to_path_buf()) })
}

fn tokenizer_in(dirs: &[&Path]) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join("tokenizer.json")).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::layout::{checkpoints_dir, mark_best, step_dir};
    use super::super::{CheckpointWriter, RunLock};
    use super::*;

    fn run_with(steps: &[u64]) -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        for step in steps {
            let writer = CheckpointWriter::begin(run.path(), *step).unwrap();
            writer.write_file("model/config.json", b"{}").unwrap();
            writer.write_file("state.json", step.to_string().as_bytes()).unwrap();
            writer.commit().unwrap();
        }
        run
    }

    fn damage(dir: &Path) {
        fs::write(dir.join("model").join("config.json"), b"[]").unwrap();
    }

    #[test]
    fn a_damaged_latest_is_refused_with_the_next_older_good_one() {
        let run = run_with(&[1, 2, 3, 4]);
        damage(&step_dir(run.path(), 4));
        damage(&step_dir(run.path(), 3));
        let error = latest(run.path()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("step-00000004: the checkpoint is damaged: model/config.json has changed"),
            "{message}"
        );
        assert!(message.contains("next older whole checkpoint is step-00000002"), "{message}");
        assert_eq!(error.exit_code(), 2);
        // What the message says to do works.
        fs::write(checkpoints_dir(run.path()).join("latest"), "step-00000002").unwrap();
        assert_eq!(latest(run.path()).unwrap(), Some(step_dir(run.path(), 2)));
    }

    #[test]
    fn without_a_pointer_the_newest_whole_directory_is_taken() {
        let run = run_with(&[1, 2, 3]);
        let pointer = checkpoints_dir(run.path()).join("latest");
        fs::remove_file(&pointer).unwrap();
        assert_eq!(latest(run.path()).unwrap(), Some(step_dir(run.path(), 3)));
        fs::write(&pointer, "step-00000009\n").unwrap();
        damage(&step_dir(run.path(), 3));
        let found = find_latest(run.path()).unwrap().unwrap();
        assert_eq!(found.dir, step_dir(run.path(), 2));
        assert!(found.note.unwrap().contains("step-00000003: the checkpoint is damaged"));
        damage(&step_dir(run.path(), 2));
        damage(&step_dir(run.path(), 1));
        assert!(latest(run.path()).unwrap_err().to_string().contains("no checkpoint is whole"));

        let empty = tempfile::tempdir().unwrap();
        assert_eq!(latest(empty.path()).unwrap(), None);
        let _lock = RunLock::acquire(empty.path()).unwrap();
        fs::create_dir(checkpoints_dir(empty.path())).unwrap();
        assert_eq!(latest(empty.path()).unwrap(), None);
        assert_eq!(best(empty.path()).unwrap(), None);
    }

    #[test]
    fn models_are_found_from_runs_checkpoints_pointers_and_their_own_directory() {
        let run = run_with(&[1, 2]);
        mark_best(run.path(), 1).unwrap();
        let model = |path: &Path| resolve_model_dir(path).unwrap().model;
        let checkpoints = checkpoints_dir(run.path());
        assert_eq!(model(run.path()), step_dir(run.path(), 2).join("model"));
        assert_eq!(model(&step_dir(run.path(), 1)), step_dir(run.path(), 1).join("model"));
        assert_eq!(model(&step_dir(run.path(), 1).join("model")), step_dir(run.path(), 1).join("model"));
        let checkpoint = resolve_model_dir(&step_dir(run.path(), 1).join("model")).unwrap().checkpoint;
        assert_eq!(checkpoint.unwrap(), step_dir(run.path(), 1).canonicalize().unwrap());
        assert_eq!(model(&checkpoints.join("best")), checkpoints.join("step-00000001").join("model"));
        assert_eq!(best(run.path()).unwrap(), Some(step_dir(run.path(), 1)));

        assert_eq!(resolve_model_dir(run.path()).unwrap().tokenizer, None);
        fs::write(run.path().join("tokenizer.json"), b"{}").unwrap();
        assert!(resolve_model_dir(run.path()).unwrap().tokenizer.unwrap().is_file());

        // A reader of the model does not mind the optimizer's files; one of the run does.
        fs::write(step_dir(run.path(), 2).join("state.json"), b"?").unwrap();
        assert!(latest(run.path()).is_err());
        assert_eq!(model(run.path()), step_dir(run.path(), 2).join("model"));
        damage(&step_dir(run.path(), 2));
        assert!(resolve_model_dir(run.path()).unwrap_err().to_string().contains("step-00000001"));
        assert!(resolve_model_dir(&step_dir(run.path(), 2)).is_err());
    }

    #[test]
    fn anything_else_is_wrong_input_that_says_what_was_expected() {
        let dir = tempfile::tempdir().unwrap();
        for (path, part) in [(dir.path().to_path_buf(), "is no model"), (dir.path().join("no"), "does not exist")] {
            let error = resolve_model_dir(&path).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        let begun = tempfile::tempdir().unwrap();
        drop(RunLock::acquire(begun.path()).unwrap());
        assert!(resolve_model_dir(begun.path()).unwrap_err().to_string().contains("no checkpoint yet"));
        fs::create_dir(checkpoints_dir(dir.path())).unwrap();
        assert!(resolve_model_dir(dir.path()).unwrap_err().to_string().contains("no checkpoint yet"));
        fs::write(checkpoints_dir(dir.path()).join("best"), "step-00000001").unwrap();
        assert!(resolve_model_dir(&checkpoints_dir(dir.path()).join("best")).is_err());
    }
}
