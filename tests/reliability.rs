//! What may go wrong while a run trains, and what is left of it then: docs/reliability.md has the table.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::running::Running;
use crate::support::{Place, lines_so_far, metrics, run, trainer, whole_checkpoints, whole_latest};

const WRONG: i32 = 2;
const FAILED: i32 = 1;
/// To be started again.
const AGAIN: i32 = 75;
/// Some tens of milliseconds a step.
const SLOW: &str = "train.batch=64 train.micro_batch=2";

#[track_caller]
fn same_weights(place: &Place, a: &str, b: &str) {
    let weights = |out: &str| fs::read(whole_latest(&place.path(out)).join("model/model.safetensors")).unwrap();
    assert!(weights(a) == weights(b), "the weights of {a} are not those of {b}");
}

/// The hours that a run was given are over: it is saved, says so with its exit code, and the same command goes on.
#[test]
fn the_same_command_goes_on_after_its_time_was_up() {
    let place = Place::new();
    run(&mut place.train("undisturbed", SLOW)).success();
    // 0.2 seconds each.
    let command = || {
        let mut command = place.train("limited", SLOW);
        command.args(["--max-hours", "0.00006", "--json"]);
        command
    };
    let (mut steps, mut ends) = (0, 0);
    loop {
        let ended = run(&mut command());
        let summary = ended.json();
        let now = summary["step"].as_u64().unwrap();
        if ends > 0 {
            let told = format!("holds this run up to step {steps}: going on from there");
            assert!(ended.stderr.contains(&told), "{}", ended.stderr);
        }
        if summary["finished"] == true {
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            break;
        }
        assert_eq!((ended.code, &summary["stopped"]), (Some(AGAIN), &Value::from("time_up")), "{}", ended.stderr);
        assert!(ended.stderr.contains("--max-hours are over"), "{}", ended.stderr);
        assert!(now > steps && whole_latest(&place.path("limited")).ends_with(format!("step-{now:08}")));
        (steps, ends) = (now, ends + 1);
    }
    assert!(ends > 0, "it was over before its time was");
    same_weights(&place, "limited", "undisturbed");
}

/// SIGUSR1, as Slurm sends it ahead of a job's end, twice.
#[cfg(unix)]
#[test]
fn preemption_saves_and_asks_for_more() {
    use nix::sys::signal::Signal;

    let place = Place::new();
    run(&mut place.train("undisturbed", SLOW)).success();
    for lines in [3, 9] {
        let mut running = Running::start(&place, &mut place.train("preempted", SLOW));
        assert!(running.wait_for(|_| lines_so_far(&place.path("preempted")) >= lines), "{}", running.said());
        for _ in 0..2 {
            crate::running::send(&running, Signal::SIGUSR1);
        }
        let (status, said) = running.end();
        assert_eq!(status.code(), Some(AGAIN), "{said}");
        let steps = metrics(&place.path("preempted")).steps.len();
        assert!(said.contains(&format!("taken away: stopped after step {steps}")), "{said}");
        assert!(whole_latest(&place.path("preempted")).ends_with(format!("step-{steps:08}")));
    }
    run(&mut place.train("preempted", SLOW)).success();
    same_weights(&place, "preempted", "undisturbed");
}

#[test]
fn checkpoints_by_time() {
    let place = Place::new();
    // Every 60 ms, of steps that take tens; of every 0.12 s one is kept.
    let sets = format!("{SLOW} checkpoint.every_minutes=0.001 checkpoint.keep_hours=3.3e-5 checkpoint.keep_last=1");
    run(&mut place.train("run", &sets)).success();
    let kept = whole_checkpoints(&place.path("run"));
    assert!(kept.len() > 2 && kept.last() == Some(&40), "{kept:?}");
}

/// The second trainer of a run directory is refused, and the first is not disturbed.
#[test]
fn two_trainers_on_one_directory() {
    let place = Place::new();
    let mut first = Running::start(&place, &mut place.train("run", SLOW));
    assert!(first.wait_for(|_| lines_so_far(&place.path("run")) >= 2), "{}", first.said());
    run(&mut place.train("run", SLOW)).error(FAILED, &["in use by another trainer", "--out"]);
    let (status, said) = first.end();
    assert!(status.success() && metrics(&place.path("run")).steps.len() == 40, "{said}");
}

/// A shard that another program cuts short while it is mapped ends the run with a sentence; nothing that is saved is hurt,
/// and with the shard back in place the run goes on.
#[cfg(unix)]
#[test]
fn a_shard_that_is_cut_short_while_it_is_read() {
    let place = Place::new();
    let sets = format!("{SLOW} checkpoint.every=5");
    run(&mut place.train("undisturbed", &sets)).success();
    let shard = place.path("data/train-00000.bin");
    let whole = fs::read(&shard).unwrap();
    let mut running = Running::start(&place, &mut place.train("run", &sets));
    assert!(running.wait_for(|_| lines_so_far(&place.path("run")) >= 7), "{}", running.said());
    // Written in place, as `cp` does: a new file under this name would leave the mapped one as it is.
    fs::File::options().write(true).open(&shard).unwrap().set_len(0).unwrap();
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(FAILED), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("train-00000.bin: was cut short"), "{said}");
    run(trainer("verify").arg(place.path("run"))).success();
    fs::write(&shard, whole).unwrap();
    run(&mut place.train("run", &sets)).success();
    same_weights(&place, "run", "undisturbed");
}

/// A file that cannot be written whole leaves the one that stood there, and nothing beside it.
#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files() {
    let place = Place::new();
    let logits = |out: &Path| {
        let mut command = trainer("logits --seq-len 64 --model");
        command.arg(crate::support::data("phi-tiny/model")).arg("--tokens");
        command.arg(crate::support::data("phi-tiny/tokens.bin")).arg("--out").arg(out);
        command
    };
    let out = place.path("l.safetensors");
    run(&mut logits(&out)).success();
    let before = fs::read(&out).unwrap();
    let whole = logits(&out);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 8; exec \"$@\"", "sh"]).arg(whole.get_program()).args(whole.get_args());
    run(&mut limited).error(FAILED, &["l.safetensors", "no space is left there"]);
    assert!(fs::read(&out).unwrap() == before);
    let names: Vec<_> = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("partial")), "{names:?}");
    run(&mut logits(Path::new("/dev/null"))).error(WRONG, &["/dev/null", "no file"]);
}

/// More than the machine has is refused with the micro-batch that would fit.
#[test]
fn more_memory_than_there_is() {
    let place = Place::new();
    let sets = "train.batch=16777216 train.micro_batch=16777216";
    let ended = run(&mut place.train("run", sets));
    let error = ended.error(WRONG, &["GiB", "--set train.micro_batch="]);
    let fitting: u64 = error.split("train.micro_batch=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(fitting > 1 && 16_777_216 % fitting == 0, "{error}");
    assert!(!place.path("run").exists());
}

/// Everything is tried, and nothing written: neither into a new run's directory nor into one that holds a run.
#[test]
fn a_dry_run_writes_nothing() {
    let place = Place::new();
    let would = run(place.train("run", "validation.every=10").args(["--dry-run", "--json"])).success().json();
    assert!(!place.path("run").exists());
    assert_eq!((&would["start_step"], &would["steps"]), (&Value::from(0), &Value::from(40)));
    assert!(
        would["second_loss"].as_f64() < would["loss"].as_f64() && would["val_loss"].as_f64() > Some(1.0),
        "{would}"
    );
    assert!(would["tokens_per_s"].as_f64() > Some(0.0) && would["checkpoint_bytes"].as_u64() > Some(41_000 * 12));

    run(&mut place.train("run", "validation.every=10")).success();
    let first = metrics(&place.path("run")).losses()[0];
    assert_eq!(would["loss"].as_f64(), Some(first), "the first step of the run is the one that was tried");
    let before = place.snapshot("run");
    let text = run(place.train("run", "validation.every=10").arg("--dry-run")).success();
    assert!(text.stdout.contains("go on from the checkpoint of step 40, of 40"), "{}", text.stdout);
    assert!(place.snapshot("run") == before, "the run's directory was written to");

    // What the run would be refused for, the trial is refused for.
    let mut flipped = fs::read(place.path("data/train-00000.bin")).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    fs::write(place.path("data/train-00000.bin"), flipped).unwrap();
    run(place.train("new", "").arg("--dry-run")).error(WRONG, &["train-00000.bin", "damaged"]);
    assert_eq!(run(place.train("new", "").args(["--dry-run", "--max-hours", "1"])).code, Some(WRONG));
}

/// The clock leaps back and forth by days with every look at it.
#[cfg(target_os = "linux")]
#[test]
fn a_clock_that_jumps() {
    let place = Place::new();
    let library = crate::support::preloaded(&place, "jumping_clock.c");
    let sets = "validation.every=10 checkpoint.every=10 checkpoint.every_minutes=0.0005 checkpoint.keep_hours=1e-5";
    run(&mut place.train("undisturbed", sets)).success();
    let jumping = |command: &mut Command| run(command.env("LD_PRELOAD", &library)).success();
    let told = jumping(Command::new("date").arg("+%s")).stdout;
    let told: i64 = told.trim().parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    assert!((told - now).abs() > 3600, "the clock does not jump");

    let mut running = Running::start(&place, place.train("jumping", sets).env("LD_PRELOAD", &library));
    assert!(running.wait_for(|_| lines_so_far(&place.path("jumping")) >= 20) && running.kill());
    jumping(&mut place.train("jumping", sets));
    let seconds = |record: &Value| record["seconds"].as_f64().unwrap();
    let steps = metrics(&place.path("jumping")).steps;
    assert!(steps.windows(2).all(|pair| seconds(&pair[0]) < seconds(&pair[1])) && seconds(&steps[39]) < 600.0);
    same_weights(&place, "jumping", "undisturbed");
    jumping(trainer("report --out").arg(place.path("page.html")).arg(place.path("jumping")));
    jumping(trainer("runs").arg(place.path("")));
}

#[cfg(target_os = "linux")]
mod disks {
    use super::*;

    /// A file system of 2 MiB, gone when dropped.
    struct SmallDisk(std::path::PathBuf);

    impl SmallDisk {
        /// `None` where this user may not mount one.
        fn mount(at: &Path) -> Option<Self> {
            fs::create_dir(at).unwrap();
            let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(at).output();
            if mount.as_ref().is_ok_and(|mount| mount.status.success()) {
                return Some(Self(at.to_path_buf()));
            }
            eprintln!("SKIPPED a small disk: it takes root and the right to mount one ({mount:?})");
            None
        }

        fn remount(&self, option: &str) {
            let remount = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0).status();
            assert!(remount.unwrap().success(), "{option}");
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }

    /// Training goes on without its checkpoints, says so with each, and ends with exit code 1: the last step has none.
    #[test]
    fn a_full_disk() {
        let place = Place::new();
        let Some(disk) = SmallDisk::mount(&place.path("disk")) else { return };
        let sets = "checkpoint.every=2 checkpoint.keep_last=50";
        let ended = run(&mut place.train("disk/run", sets));
        let words =
            ["the checkpoint of step 40 was not saved", "no space is left", "free some", "earlier ones are intact"];
        ended.error(FAILED, &words);
        let warnings: Vec<&str> =
            ended.stderr.lines().filter(|line| line.starts_with("warning: the checkpoint")).collect();
        let goes_on = |line: &&&str| line.contains("training goes on") != line.contains("step 40 was");
        assert_eq!(warnings.iter().filter(goes_on).count(), warnings.len(), "{warnings:?}");
        let saved = whole_checkpoints(&place.path("disk/run"));
        let (last, failed) = (*saved.last().unwrap(), saved.len() as u64 * 2 + 2);
        assert!(saved.len() > 1 && failed < 36, "{saved:?}");
        assert_eq!(saved, (1..=saved.len() as u64).map(|i| i * 2).collect::<Vec<_>>());
        assert!(warnings.len() >= 20 - saved.len(), "one for each that failed: {warnings:?}");
        let first = format!("the checkpoint of step {failed} was not saved");
        assert!(warnings.iter().any(|line| line.contains(&first)), "{warnings:?}");
        assert!(whole_latest(&place.path("disk/run")).ends_with(format!("step-{last:08}")));

        // With room again, the same command goes on to what the run would have been.
        disk.remount("size=64m");
        run(&mut place.train("disk/run", sets)).success();
        run(&mut place.train("undisturbed", sets)).success();
        same_weights(&place, "disk/run", "undisturbed");
        assert_eq!(metrics(&place.path("disk/run")).losses(), metrics(&place.path("undisturbed")).losses());
    }

    /// A trial says before what would not fit.
    #[test]
    fn a_disk_that_will_not_hold_the_checkpoints() {
        let place = Place::new();
        let Some(_disk) = SmallDisk::mount(&place.path("disk")) else { return };
        let sets = "checkpoint.every=2 checkpoint.keep_last=50";
        run(place.train("disk/run", sets).arg("--dry-run")).error(WRONG, &["free", "checkpoint.keep_last", "--out"]);
        run(place.train("disk/run", "").arg("--dry-run")).success();
        assert!(!place.path("disk/run").exists());
    }

    /// Nothing may be written there at all.
    #[test]
    fn a_read_only_disk() {
        let place = Place::new();
        let Some(disk) = SmallDisk::mount(&place.path("disk")) else { return };
        disk.remount("ro");
        let ended = run(&mut place.train("disk/run", ""));
        ended.error(FAILED, &["disk/run", "Read-only"]);
        disk.remount("rw");
        run(&mut place.train("disk/run", "")).success();
    }
}

/// Checkpoints cannot be written for a while; then they can, and the run has lost nothing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_place_that_cannot_be_written_for_a_while() {
    let place = Place::new();
    let sets = format!("{SLOW} checkpoint.every=3 checkpoint.keep_last=2");
    let out = place.path("run");
    let (checkpoints, aside) = (out.join("checkpoints"), out.join("aside"));
    let mut running = Running::start(&place, &mut place.train("run", &sets));
    assert!(running.wait_for(|_| checkpoints.join("latest").exists()), "{}", running.said());
    // In one call each: a checkpoint that is begun in between would make the folder anew.
    let exchange = || {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        renameat2(AT_FDCWD, &checkpoints, AT_FDCWD, &aside, RenameFlags::RENAME_EXCHANGE).unwrap();
    };
    fs::write(&aside, b"in the way").unwrap();
    exchange();
    // Not "is saved, but": one that was in place already may find the way blocked when earlier ones are to be removed.
    assert!(running.wait_for(|running| running.said().contains("was not saved")), "{}", running.said());
    let failed_at = lines_so_far(&out);
    exchange();
    let (status, said) = running.end();
    assert!(status.success() && failed_at < 40 && said.contains("training goes on"), "{said}");
    assert_eq!(whole_checkpoints(&out).last(), Some(&40));
    assert_eq!(metrics(&out).steps.len(), 40);
}
