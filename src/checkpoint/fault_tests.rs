//! What is left on disk when the process is killed, or the disk is full, in the middle of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::hugging_face::{ConfigExtras, WeightsReader, write_config, write_weights};
use super::layout::{self, Pointer};
use super::*;
use crate::error::Result;
use crate::model::architecture::Architecture;

const RUN_DIR: &str = "TRAINER_TEST_KILLED_RUN";
const KILLS: u64 = 40;

/// What a step's weights are: exact in f16.
fn mark(step: u64) -> f32 {
    (step % 2048) as f32
}

/// A small but complete checkpoint, whose every part tells its step.
fn save(run: &Path, step: u64, floats: usize) -> Result<PathBuf> {
    let values = vec![mark(step); floats];
    let writer = CheckpointWriter::begin(run, step)?;
    let model = writer.model_dir()?;
    write_config(&model, &Architecture::phi(1, 8, 1, 8, 8), &ConfigExtras::new(Dtype::F16))?;
    let half = |name| TensorEntry::from_f32(name, vec![floats], &values, Dtype::F16);
    write_weights(&model, [half("a"), half("b")], floats as u64 * 2)?;
    writer.write_tensors("optimizer-0.safetensors", vec![TensorEntry::f32("m", vec![floats], &values)])?;
    writer.write_file("state.json", format!("{{\"step\":{step}}}").as_bytes())?;
    writer.commit()
}

/// The step of a checkpoint, once all its parts agree on it.
fn step_of(dir: &Path) -> u64 {
    let state: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("state.json")).unwrap()).unwrap();
    let step = state["step"].as_u64().unwrap();
    let mut value = [0.0; 3000];
    WeightsReader::open(&dir.join("model")).unwrap().read_f32("b", &mut value).unwrap();
    assert!(value.iter().all(|value| *value == mark(step)));
    TensorFile::open(&dir.join("optimizer-0.safetensors")).unwrap().read_f32("m", &mut value).unwrap();
    assert!(value.iter().all(|value| *value == mark(step)));
    step
}

#[test]
#[ignore = "the process that sigkill_at_any_moment_leaves_a_whole_checkpoint kills"]
fn the_killed_run() {
    let Some(run) = std::env::var_os(RUN_DIR).map(PathBuf::from) else { return };
    let _lock = RunLock::acquire(&run).unwrap();
    clean_stale(&run).unwrap();
    let mut step = latest(&run).unwrap().map_or(0, |dir| step_of(&dir));
    // Long past the last kill: an end for a process whose killer has gone.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        // Every third step is saved twice: the replacement of a checkpoint must be as safe as its first writing.
        for _ in 0..=u64::from(step > 0 && step.is_multiple_of(3)) {
            save(&run, step.max(1), 3000).unwrap();
        }
        if step % 4 == 1 {
            mark_best(&run, step).unwrap();
        }
        retain(&run, &Retention { last: 2, every: 10, hours: 0.0 }, |_| None).unwrap();
        step = step.max(1) + 1;
    }
}

fn start(run: &Path) -> Child {
    // The name of a test is its path without the crate.
    let module = module_path!().split_once("::").unwrap().1;
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::the_killed_run"), "--ignored", "--nocapture"])
        .env(RUN_DIR, run)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn sigkill_at_any_moment_leaves_a_whole_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    let (mut random, mut last, mut leftovers, mut moves) = (0x2545_F491_4F6C_DD1D_u64, 0, 0, 0);
    for kill in 0..KILLS {
        let mut child = start(run.path());
        let before = Pointer::Latest.read(run.path()).unwrap();
        // The moment is counted from the first new checkpoint, so that no kill falls into the start of the process.
        let begun = Instant::now();
        while Pointer::Latest.read(run.path()).unwrap() == before && begun.elapsed() < Duration::from_secs(60) {
            assert!(child.try_wait().unwrap().is_none(), "the run ended by itself: {:?}", child.wait_with_output());
            std::thread::sleep(Duration::from_millis(1));
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();

        leftovers += layout::entry_names(run.path()).unwrap().iter().filter(|name| name.starts_with('.')).count();
        let dir = latest(run.path()).unwrap().unwrap_or_else(|| panic!("kill {kill}: no checkpoint"));
        let step = step_of(&dir);
        assert!(step >= last, "kill {kill}: went back from {last} to {step}");
        moves += u32::from(step > last);
        last = step;
        for step in layout::list_steps(run.path()).unwrap() {
            let dir = layout::existing_dir(run.path(), step).unwrap();
            verify(&dir).unwrap();
            assert_eq!(step_of(&dir), step);
        }
        if let Some(best) = best(run.path()).unwrap() {
            step_of(&best);
        }
        let lock = RunLock::acquire(run.path()).unwrap();
        if kill % 2 == 0 {
            clean_stale(run.path()).unwrap();
            assert!(layout::entry_names(run.path()).unwrap().iter().all(|name| !name.starts_with('.')));
            assert_eq!(step_of(&latest(run.path()).unwrap().unwrap()), step);
        }
        drop(lock);
    }
    eprintln!("{KILLS} kills, {leftovers} leftovers found, {moves} times further, last step {last}");
    // Kills that never fall into the middle of a save would prove nothing.
    assert!(leftovers >= KILLS as usize / 4 && moves >= KILLS as u32 / 2);
}

/// Every state that `put_in_place` can be killed in, made by hand: the window is too short for random kills.
#[test]
fn killed_between_any_two_renames() {
    for moment in 0..4 {
        let run = tempfile::tempdir().unwrap();
        for step in [1, 2] {
            save(run.path(), step, 3000).unwrap();
        }
        let dir = layout::checkpoints_dir(run.path());
        let (place, new) = (layout::step_dir(run.path(), 2), dir.join(".tmp-step-00000002"));
        let aside = dir.join(".replaced-step-00000002");
        let copy = tempfile::tempdir().unwrap();
        let other = save(copy.path(), 2, 3000).unwrap();
        fs::rename(&other, &new).unwrap();
        if moment >= 1 {
            fs::rename(&place, &aside).unwrap();
        }
        if moment >= 2 {
            fs::rename(&new, &place).unwrap();
        }
        if moment >= 3 {
            fs::remove_file(aside.join("state.json")).unwrap();
            fs::rename(&aside, dir.join(".trash-step-00000002")).unwrap();
        }
        assert_eq!(step_of(&latest(run.path()).unwrap().unwrap()), 2, "moment {moment}");
        clean_stale(run.path()).unwrap();
        assert_eq!(latest(run.path()).unwrap(), Some(place), "moment {moment}");
        assert_eq!(layout::entry_names(run.path()).unwrap().len(), 3, "moment {moment}");
    }
}

/// A file system of `kib` KiB; `None` where this user may not mount one.
#[cfg(target_os = "linux")]
fn small_disk(kib: usize) -> Option<(tempfile::TempDir, impl Drop)> {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let size = format!("size={kib}k");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        return None;
    }
    let mounted = Mounted(dir.path().to_path_buf());
    Some((dir, mounted))
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint() {
    let Some((disk, _mounted)) = small_disk(1024) else {
        eprintln!("SKIPPED: a small disk can be mounted by root only");
        return;
    };
    let run = disk.path().join("run");
    let first = save(&run, 1, 3000).unwrap();
    // Full in the optimizer's file, at its end, in the second shard, in the first.
    for floats in [200_000, 140_000, 300_000, 600_000] {
        let error = save(&run, 2, floats).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("no space is left") && message.contains("free some space"), "{message}");
        assert_eq!((error.exit_code(), message.lines().count()), (1, 1));
        assert_eq!(latest(&run).unwrap(), Some(first.clone()));
        let names = layout::entry_names(&run).unwrap();
        assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    }
    // Room for a part of the small files only: MANIFEST or the pointer may be what no longer fits.
    let filler = disk.path().join("filler");
    let (mut saved, mut refused) = (0, 0);
    for left in (0..160).step_by(4) {
        fill(&filler, left << 10);
        let before = latest(&run).unwrap();
        match save(&run, 3, 3000) {
            Ok(dir) => {
                saved += 1;
                assert_eq!(latest(&run).unwrap(), Some(dir));
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("no space is left"), "{error}");
                assert_eq!(latest(&run).unwrap(), before);
            }
        }
        fs::remove_file(&filler).unwrap();
        clean_stale(&run).unwrap();
        step_of(&latest(&run).unwrap().unwrap());
    }
    assert!(saved > 5 && refused > 5, "{saved} saved, {refused} refused");
}

/// Fills the disk but for `left` bytes.
#[cfg(target_os = "linux")]
fn fill(filler: &Path, left: u64) {
    use std::io::Write;
    let mut file = fs::File::create(filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length - left).unwrap();
}
