use super::*;
use crate::checkpoint::layout::{checkpoints_dir, step_dir};
use crate::checkpoint::{RunLock, TensorEntry, TensorFile};
use crate::data::dataset::{Dataset, Split};
use crate::data::manifest::Manifest;
use crate::fixtures;
use crate::report::{metrics, sessions};

fn report(path: &Path) -> Report {
    verify(path, &()).unwrap()
}

#[track_caller]
fn assert_whole(path: &Path, kind: Kind) {
    let report = report(path);
    assert_eq!((report.kind, report.damaged().next()), (kind, None));
    assert!(!report.checks.is_empty());
}

/// What is said of the one thing that is damaged, which is `path`.
#[track_caller]
fn damage(of: &Path, path: &Path) -> String {
    let report = report(of);
    let damaged: Vec<&Check> = report.damaged().collect();
    assert_eq!(damaged.iter().map(|check| &check.path).collect::<Vec<_>>(), [path], "{damaged:?}");
    damaged[0].what.clone()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    storage::walk(dir).unwrap().0.into_iter().map(|file| dir.join(file)).collect()
}

#[test]
fn whole_things_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fixtures::run(&at("run"));
    assert_whole(&at("run"), Kind::Run);
    assert_whole(&step_dir(&at("run"), 2), Kind::Checkpoint);
    assert_whole(&checkpoints_dir(&at("run")).join("best"), Kind::Checkpoint);
    assert_whole(&step_dir(&at("run"), 2).join("model"), Kind::Model);
    fixtures::data(&at("data"));
    assert_whole(&at("data"), Kind::Data);
    assert_whole(&at("data").join("train-00000.bin"), Kind::Shard);
    fixtures::model(&at("model"), u64::MAX);
    fixtures::model(&at("sharded"), 8000);
    assert!(at("sharded").join(INDEX_FILE).is_file());
    for model in ["model", "sharded"] {
        assert_whole(&at(model), Kind::Model);
        assert!(report(&at(model)).checks[1].what.contains("no checksums"), "{:?}", report(&at(model)));
    }
}

#[test]
fn a_changed_byte_anywhere_in_a_checkpoint_is_found() {
    let dir = tempfile::tempdir().unwrap();
    fixtures::run(dir.path());
    let checkpoint = step_dir(dir.path(), 2);
    for file in files_below(&checkpoint) {
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 5 + 1).chain([whole.len() - 1]) {
            flip(&file, at);
            let found = report(&checkpoint);
            let name = file.file_name().unwrap().to_str().unwrap();
            let first = &found.checks[0];
            assert!(!first.ok && first.path == checkpoint && first.what.contains(name), "{name} {at}: {first:?}");
            fs::write(&file, &whole).unwrap();
        }
        fs::remove_file(&file).unwrap();
        assert!(!report(&checkpoint).checks[0].ok, "{} removed", file.display());
        fs::write(&file, &whole).unwrap();
    }
    assert_whole(&checkpoint, Kind::Checkpoint);
}

#[test]
fn a_changed_byte_anywhere_in_a_shard_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fixtures::data(&data);
    for file in files_below(&data).into_iter().filter(|file| is_bin(file)) {
        let whole = fs::read(&file).unwrap();
        // llm.c leaves the words behind ours empty, and no reader looks at them.
        for at in (0..64).step_by(7).chain((1024..whole.len()).step_by(97)) {
            flip(&file, at);
            damage(&data, &file);
            damage(&file, &file);
            fs::write(&file, &whole).unwrap();
        }
        fs::write(&file, &whole[..whole.len() - 2]).unwrap();
        assert!(damage(&data, &file).contains("is truncated"));
        fs::write(&file, &whole).unwrap();
    }
    flip(&data.join("tokenizer.json"), 300);
    damage(&data, &data.join("tokenizer.json"));
}

/// Each of the shards is whole, but not in its own place.
#[test]
fn exchanged_and_renamed_shards_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fixtures::data(&data);
    let at = |name: &str| data.join(name);
    let exchange = |a: &str, b: &str| {
        fs::rename(at(a), at("aside")).unwrap();
        fs::rename(at(b), at(a)).unwrap();
        fs::rename(at("aside"), at(b)).unwrap();
    };
    for (a, b) in [("train-00000.bin", "val-00000.bin"), ("train-00000.bin", "train-00001.bin")] {
        exchange(a, b);
        let found = report(&data);
        let damaged: Vec<(&Path, &str)> = found.damaged().map(|check| (&*check.path, &*check.what)).collect();
        assert_eq!(damaged.iter().map(|(path, _)| *path).collect::<Vec<_>>(), [at(a), at(b)]);
        for ((_, what), place) in damaged.iter().zip([at(b), at(a)]) {
            assert!(what.contains("found another") && what.contains(place.to_str().unwrap()), "{what}");
        }
        let refused = Dataset::open(&data, Split::Train).err().unwrap().to_string();
        assert!(refused.contains(a) && refused.contains("found another"), "{refused}");
        if b.starts_with("val") {
            assert!(Dataset::open(&data, Split::Val).err().unwrap().to_string().contains(b));
        }
        exchange(a, b);
    }
    fs::rename(at("train-00001.bin"), at("train-1.bin")).unwrap();
    let what = damage(&data, &at("train-00001.bin"));
    assert!(
        what.contains("is missing") && what.contains("its tokens are in") && what.contains("train-1.bin"),
        "{what}"
    );
    let refused = Dataset::open(&data, Split::Train).err().unwrap().to_string();
    assert!(refused.contains("train-00001.bin: is missing"), "{refused}");
    fs::rename(at("train-1.bin"), at("train-00001.bin")).unwrap();
    // A shard of another data set, whole in itself.
    let other = dir.path().join("other");
    fixtures::data(&other);
    fs::copy(at("val-00000.bin"), at("train-00002.bin")).unwrap();
    assert!(damage(&data, &at("train-00002.bin")).contains("found another"));
    assert_whole(&other, Kind::Data);
}

#[test]
fn a_manifest_must_add_up_and_stay_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fixtures::data(&data);
    let path = data.join(MANIFEST);
    let whole = Manifest::read(&data).unwrap().unwrap();
    let mut wrong = whole.clone();
    wrong.train.tokens += 1;
    wrong.write(&data).unwrap();
    assert!(damage(&data, &path).contains("but shards of"));
    let mut outside = whole.clone();
    outside.train.shards[0].file = "../data/train-00000.bin".to_string();
    outside.write(&data).unwrap();
    assert!(damage(&data, &path).contains("expected a file beside it"));
    let refused = Dataset::open(&data, Split::Train).err().unwrap();
    assert!(refused.exit_code() == 2 && refused.to_string().contains("expected a file beside it"), "{refused}");
    fs::remove_file(&path).unwrap();
    assert!(damage(&data, &path).contains("is missing"));
}

#[test]
fn llm_cs_shards_are_said_to_have_no_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fixtures::data(&data);
    let (from, to) = (data.join("train-00000.bin"), dir.path().join("fineweb_train_000001.bin"));
    let mut bytes = fs::read(from).unwrap();
    bytes[12..1024].fill(0);
    fs::write(&to, &bytes).unwrap();
    for (path, kind) in [(to.as_path(), Kind::Shard), (dir.path(), Kind::Data)] {
        assert_whole(path, kind);
        assert!(report(path).checks[0].what.contains("llm.c's format has no checksum"));
    }
    fs::write(&to, &bytes[..bytes.len() - 1]).unwrap();
    assert!(damage(dir.path(), &to).contains("is truncated"));
}

#[test]
fn a_run_says_what_to_go_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    fixtures::run(run);
    let checkpoints = checkpoints_dir(run);
    let (latest, best) = (checkpoints.join("latest"), checkpoints.join("best"));
    flip(&step_dir(run, 4).join("model").join("model.safetensors"), 5000);
    let found = report(run);
    let damaged: Vec<(PathBuf, String)> =
        found.damaged().map(|check| (check.path.clone(), check.what.clone())).collect();
    assert_eq!(damaged.len(), 2, "{damaged:?}");
    assert!(
        damaged[0].0 == step_dir(run, 4) && damaged[0].1.contains("model/model.safetensors has changed"),
        "{damaged:?}"
    );
    assert!(damaged[1].0 == latest && damaged[1].1.contains("write step-00000002 into this file"), "{damaged:?}");
    fs::remove_dir_all(step_dir(run, 4)).unwrap();
    assert!(damage(run, &latest).contains("names step-00000004, which is not there"));
    fs::write(&latest, "step-00000002").unwrap();
    assert_whole(run, Kind::Run);
    fs::write(&best, "the first").unwrap();
    assert!(damage(run, &best).contains("names no checkpoint: restore"));
    fs::remove_file(&best).unwrap();
    fs::remove_file(&latest).unwrap();
    assert!(damage(run, &latest).contains("is missing: to go on"));
}

#[test]
fn the_logs_and_the_configuration_of_a_run_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    fixtures::run(run);
    let edit = |name: &str, edit: &dyn Fn(String) -> String| {
        let path = run.join(name);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, edit(whole.clone())).unwrap();
        (path, whole)
    };
    for name in [metrics::FILE_NAME, sessions::FILE_NAME] {
        // Being written.
        let (path, whole) = edit(name, &|whole| whole + "{\"step\": 5, \"lo");
        assert_whole(run, Kind::Run);
        fs::write(path, whole).unwrap();
        let (path, whole) = edit(name, &|whole| whole.replacen("step", "stop", 1));
        assert!(damage(run, &path).contains("line 1 is no record"));
        fs::write(path, whole).unwrap();
    }
    let (path, whole) = edit("config.toml", &|whole| whole.replacen("\nsteps = ", "\nsteps = -", 1));
    assert!(damage(run, &path).contains("train.steps is -"));
    fs::remove_file(&path).unwrap();
    assert!(damage(run, &path).contains("is missing"));
    fs::write(path, whole).unwrap();
    // A checkpoint that is whole, under the name of another step.
    fs::remove_dir_all(step_dir(run, 4)).unwrap();
    fs::rename(step_dir(run, 2), step_dir(run, 4)).unwrap();
    let found = report(run);
    let state = found.damaged().find(|check| check.path.ends_with("state.json")).unwrap();
    assert!(state.what.contains("is of step 2, in a checkpoint of step 4"), "{state:?}");
}

/// The lock is a trainer's, and so is what it is writing.
#[test]
fn a_run_that_goes_on_is_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    fixtures::run(dir.path());
    let lock = RunLock::acquire(dir.path()).unwrap();
    let writing = checkpoints_dir(dir.path()).join(".tmp-step-00000006");
    fs::create_dir(&writing).unwrap();
    fs::write(writing.join("state.json"), "{").unwrap();
    let before = files_below(dir.path());
    assert_whole(dir.path(), Kind::Run);
    assert_eq!(files_below(dir.path()), before);
    drop(lock);
    RunLock::acquire(dir.path()).unwrap();
}

#[test]
fn optimizer_state_must_be_that_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    fixtures::run(dir.path());
    let checkpoint = step_dir(dir.path(), 2);
    let path = checkpoint.join("optimizer-00000-of-00001.safetensors");
    let entry = TensorEntry::f32("m.lm_head.bias", vec![1], &[0.0]);
    crate::checkpoint::tensor_file::write_tensor_file(&path, vec![entry], &[]).unwrap();
    let found = report(&checkpoint);
    let last = found.checks.last().unwrap();
    assert!(!last.ok && last.what.contains("holds no elements 0 to"), "{last:?}");
}

#[test]
fn weights_that_are_not_finite_or_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fixtures::model(&model, u64::MAX);
    let path = model.join(SINGLE_FILE);
    let start = {
        let file = TensorFile::open(&path).unwrap();
        let bias = file.bytes("lm_head.bias").unwrap();
        fs::read(&path).unwrap().len() - file.names().iter().map(|name| file.bytes(name).unwrap().len()).sum::<usize>()
            + (bias.as_ptr() as usize - file.bytes(&file.names()[0]).unwrap().as_ptr() as usize)
    };
    let mut bytes = fs::read(&path).unwrap();
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[start + 8..start + 12].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(damage(&model, &model).contains("NaN or infinite (2 in lm_head.bias)"));
    fs::remove_file(&path).unwrap();
    assert!(damage(&model, &model).contains("has no weights"));

    let sharded = dir.path().join("sharded");
    fixtures::model(&sharded, 8000);
    let shard = files_below(&sharded).into_iter().find(|file| file.to_str().unwrap().contains("00002-of")).unwrap();
    fs::remove_file(&shard).unwrap();
    let what = damage(&sharded, &sharded);
    assert!(what.contains(shard.file_name().unwrap().to_str().unwrap()) && what.contains("missing"), "{what}");
}

#[test]
fn a_tokenizer_must_fit_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fixtures::model(&model, u64::MAX);
    crate::data::tokenizer::Tokenizer::codegen().save(&model).unwrap();
    assert!(
        damage(&model, &model.join("tokenizer.json")).contains("has 50295 ids, but the model's vocabulary only 257")
    );
}

#[test]
fn what_is_none_of_these_is_wrong_input() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "notes").unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("notes.txt"), dir.path().join("absent")] {
        let error = verify(&path, &()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("expected a run, a checkpoint, a data directory"), "{error}");
    }
}

/// The bar must come to its end, however the files are divided.
#[test]
fn another_model_is_not_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), r#"{"model_type": "llama", "hidden_size": 64}"#).unwrap();
    let error = verify(dir.path(), &()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("llama"), "{error}");
    // Of whose model no more can be said than that it is not whole.
    fs::write(dir.path().join("config.json"), r#"{"model_type": "phi", "hidden_size": "#).unwrap();
    assert!(report(dir.path()).damaged().any(|check| check.what.contains("JSON")));
}

#[test]
fn as_many_bytes_are_read_as_were_announced() {
    use std::sync::atomic::{AtomicU64, Ordering};
    #[derive(Default)]
    struct Counted(AtomicU64, AtomicU64);
    impl Progress for Counted {
        fn expect(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
        fn read(&self, bytes: u64) {
            self.1.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fixtures::run(&dir.path().join("run"));
    fixtures::data(&dir.path().join("data"));
    fixtures::model(&dir.path().join("model"), u64::MAX);
    for name in ["run", "data", "model"] {
        let counted = Counted::default();
        verify(&dir.path().join(name), &counted).unwrap();
        let [expected, read] = [counted.0, counted.1].map(AtomicU64::into_inner);
        // What is parsed and not summed up (headers, JSON) is in the one number alone.
        assert!(read <= expected && read * 2 > expected, "{name}: {read} of {expected}");
    }
}
