//! A run that is killed or stopped, and resumed, is the run that nobody disturbed: the same bits of weights and optimizer
//! state, the same metrics.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use trainer::checkpoint::{self, layout::list_steps};
use trainer_backends::dropout::mix64;

use crate::running::{Running, send};
use crate::support::{Place, lines_so_far, metrics, run, trainer, whole_latest};

/// TRAINER_KILLS asks for more.
const KILLS: usize = 20;
const KILLS_A_RUN: usize = 4;
/// Accumulation over two micro-batches, dropout on (the small configuration), a checkpoint every 5 steps.
const RUN: &str = "train.steps=60 checkpoint.every=5 validation.every=10";
/// The first steps overflow, and halve the scale once each.
const OVERFLOWING: &str = "train.steps=30 checkpoint.every=5 train.precision=fp16 train.loss_scale=1e9";

/// What must be the same after any number of interruptions.
#[derive(PartialEq)]
struct Outcome {
    weights: Vec<u8>,
    optimizer: Vec<u8>,
    state: Value,
    steps: Vec<Value>,
    validations: Vec<Value>,
}

impl Outcome {
    #[track_caller]
    fn of(run: &Path) -> Self {
        let checkpoint = whole_latest(run);
        let read = |name: &str| fs::read(checkpoint.join(name)).unwrap();
        let mut metrics = metrics(run);
        let mut state: Value = serde_json::from_slice(&read("state.json")).unwrap();
        // Time and the process's memory are what two runs do not share.
        for record in metrics.steps.iter_mut().chain([&mut state]) {
            for timing in ["seconds", "tokens_per_s", "mfu", "memory"] {
                record.as_object_mut().unwrap().remove(timing);
            }
        }
        Self {
            weights: read("model/model.safetensors"),
            optimizer: read("optimizer-00000-of-00001.safetensors"),
            state,
            steps: metrics.steps,
            validations: metrics.validations,
        }
    }

    #[track_caller]
    fn assert_same(&self, undisturbed: &Self) {
        assert_eq!(self.steps, undisturbed.steps);
        assert_eq!(self.validations, undisturbed.validations);
        assert_eq!(self.state, undisturbed.state);
        // Not assert_eq: nobody reads a hundred thousand bytes.
        assert!(self.weights == undisturbed.weights, "other weights");
        assert!(self.optimizer == undisturbed.optimizer, "another optimizer state");
    }
}

/// The fp32 weights and the moments are those that the run had; only fp16 has a loss scale.
#[test]
fn a_run_goes_on_in_another_precision() {
    let place = Place::new();
    let then_in = |first: &str, then: &str| {
        let out = format!("{first}-{then}");
        run(&mut place.train(&out, &format!("train.steps=10 train.precision={first}"))).success();
        let mut command = trainer("train --resume --out");
        command.arg(place.path(&out)).args(["--set", "train.steps=20", "--set"]).arg(format!("train.precision={then}"));
        let ended = run(&mut command).success();
        assert!(ended.stderr.contains("going on with train.steps = 20 (10 before)"), "{}", ended.stderr);
        metrics(&place.path(&out)).steps
    };
    let last = |steps: &[Value]| steps[19]["loss"].as_f64().unwrap();
    let expected = last(&then_in("fp32", "fp32"));
    for (first, then) in [("fp16", "fp32"), ("fp32", "fp16"), ("fp16", "bf16"), ("bf16", "fp16")] {
        let steps = then_in(first, then);
        let scale = steps[12]["loss_scale"].as_f64().unwrap();
        assert!(if then == "fp16" { scale >= 16384.0 } else { scale == 1.0 }, "{first}, {then}: {scale}");
        // Ten steps of rounding: weights or moments that were lost cost more.
        assert!((last(&steps) / expected - 1.0).abs() < 0.02, "{first}, {then}: {} beside {expected}", last(&steps));
    }
}

/// Until its first checkpoint, only the run's directory knows with which model it began.
#[test]
fn a_finetune_without_a_checkpoint_begins_with_its_model_again() {
    let place = Place::new();
    run(&mut place.train("base", "train.steps=10")).success();
    let finetune = |out: &str| {
        let mut command = place.train(out, "train.batch=64 train.micro_batch=2");
        command.arg("--init-from").arg(place.path("base"));
        command
    };
    run(&mut finetune("undisturbed")).success();
    let mut running = Running::start(&place, &mut finetune("killed"));
    assert!(running.wait_for(|_| lines_so_far(&place.path("killed")) >= 1) && running.kill());
    // The base goes on meanwhile.
    run(trainer("train --resume --set train.steps=12 --out").arg(place.path("base"))).success();
    let ended = run(trainer("train --resume --out").arg(place.path("killed"))).success();
    assert!(ended.stderr.contains("begins at step 1, with the weights of "), "{}", ended.stderr);
    let losses = |out: &str| metrics(&place.path(out)).losses();
    assert_eq!(losses("killed"), losses("undisturbed"));
}

/// Kills and resumes runs, `KILLS_A_RUN` times each, until there have been enough; each run is then resumed until it
/// finishes.
///
/// A moment is drawn as a line of the metrics, from all over the run, and a delay after it that lasts for some steps:
/// moments by the clock alone would pile up at the start of a run wherever the machine is busy. Every fourth kill then
/// waits until a checkpoint is being written.
#[test]
fn killed_at_random_moments() {
    let kills = std::env::var("TRAINER_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let place = Place::new();
    run(&mut place.train("undisturbed", RUN)).success();
    let undisturbed = Outcome::of(&place.path("undisturbed"));
    assert_eq!((undisturbed.steps.len(), undisturbed.validations.len()), (60, 6));
    let all_lines = undisturbed.steps.len() + undisturbed.validations.len();

    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var("TRAINER_KILL_SEED").map_or(now, |seed| seed.parse().unwrap());
    eprintln!("TRAINER_KILL_SEED={seed}");
    let mut draws = (0..).map(|i| (mix64(seed ^ mix64(i)) >> 11) as f64 / (1u64 << 53) as f64);
    let mut share = || draws.next().unwrap();
    let (mut killed_at, mut while_saving, mut runs) = (Vec::new(), 0, 0);
    while killed_at.len() < kills {
        runs += 1;
        let out = format!("killed-{runs}");
        let checkpoints = place.path(&out).join("checkpoints");
        let saving = |_: &Running| {
            let names = fs::read_dir(&checkpoints).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.into_iter().any(|name| name.to_string_lossy().starts_with(".tmp-step-"))
        };
        let mut lines: Vec<_> = (0..KILLS_A_RUN).map(|_| (share() * all_lines as f64) as usize).collect();
        lines.sort_unstable();
        for line in lines {
            let saved = list_steps(&place.path(&out)).unwrap().last().copied().unwrap_or(0);
            let mut running = Running::start(&place, place.train(&out, RUN).arg("--resume"));
            // Once the table is shown, the lines of steps after the checkpoint have been taken away. A line before the
            // checkpoint's is there already: that kill falls into the start of the process.
            if line > (saved + saved / 10) as usize {
                running
                    .wait_for(|running| running.said().contains("\nrun ") && lines_so_far(&place.path(&out)) >= line);
            }
            std::thread::sleep(Duration::from_millis(20).mul_f64(share()));
            let aimed = killed_at.len() % 4 == 3 && running.wait_for(saving);
            if running.kill() {
                killed_at.push(lines_so_far(&place.path(&out)));
                while_saving += usize::from(aimed);
            }
        }
        run(place.train(&out, RUN).arg("--resume")).success();
        Outcome::of(&place.path(&out)).assert_same(&undisturbed);
    }
    eprintln!(
        "{} kills over {runs} runs, {while_saving} aimed at a save, the same bits each time; killed after \
         {killed_at:?} of {all_lines} lines",
        killed_at.len()
    );
}

/// fp16 with a loss scale that overflows, three times in a row, with accumulation and dropout: the scale's state (scale,
/// clean steps, hysteresis) goes on where it was.
#[test]
fn killed_while_the_loss_scale_comes_down() {
    let place = Place::new();
    run(&mut place.train("undisturbed", OVERFLOWING)).success();
    let undisturbed = Outcome::of(&place.path("undisturbed"));
    let skipped = undisturbed.steps.iter().filter(|step| step["skipped"] == true).count();
    assert!((7..25).contains(&skipped), "{skipped} steps overflowed");

    let out = place.path("killed");
    for lines in [7, 14, 22] {
        let mut running = Running::start(&place, place.train("killed", OVERFLOWING).arg("--resume"));
        // The first checkpoint waits for the check of the data, which on a busy machine takes longer than some steps.
        let far_enough = |_: &Running| lines_so_far(&out) >= lines && matches!(checkpoint::latest(&out), Ok(Some(_)));
        assert!(running.wait_for(far_enough) && running.kill(), "it ended by itself");
        let state = fs::read(whole_latest(&out).join("state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        let scale = state["loss_scale"]["scale"].as_f64().unwrap();
        assert!(scale < 1e9, "nothing had overflowed yet: {state}");
    }
    run(place.train("killed", OVERFLOWING).arg("--resume")).success();
    Outcome::of(&out).assert_same(&undisturbed);
}

/// `--resume` of a run that is done changes nothing.
#[test]
fn resuming_a_finished_run() {
    let place = Place::new();
    run(&mut place.train("run", RUN)).success();
    let before = place.snapshot("run");
    run(place.train("run", RUN).arg("--resume")).success();
    assert!(place.snapshot("run") == before, "resuming a finished run changed it");
}

#[cfg(unix)]
mod signals {
    use nix::sys::signal::Signal;

    use super::*;

    /// The step is finished and saved, the exit code is 0, and the resumed run gives the same bits.
    #[test]
    fn finish_the_step_save_and_exit() {
        let place = Place::new();
        // Slower steps, and no checkpoint that is due anyway near the signal.
        let slow = "train.steps=12 train.batch=64 train.micro_batch=2 checkpoint.every=0";
        run(&mut place.train("undisturbed", slow)).success();
        let undisturbed = Outcome::of(&place.path("undisturbed"));
        let out = place.path("stopped");
        for (signal, lines) in [(Signal::SIGTERM, 3), (Signal::SIGINT, 7)] {
            let mut running = Running::start(&place, place.train("stopped", slow).arg("--resume"));
            assert!(running.wait_for(|_| lines_so_far(&out) >= lines), "it ended by itself: {}", running.said());
            send(&running, signal);
            let (status, said) = running.end();
            assert_eq!(status.code(), Some(0), "{said}");
            let steps = metrics(&out).steps.len();
            assert!((lines..12).contains(&steps), "{steps} steps, signalled after {lines}");
            assert!(whole_latest(&out).ends_with(format!("step-{steps:08}")), "the last step was not saved: {said}");
            assert!(said.contains(&format!("stopped after step {steps}")) && said.contains("--resume"), "{said}");
        }
        run(place.train("stopped", slow).arg("--resume")).success();
        Outcome::of(&out).assert_same(&undisturbed);
    }

    /// No end runs what libraries have left for it: LLVM's takes its tables from under a software device's threads.
    #[cfg(target_os = "linux")]
    #[test]
    fn ends_are_not_the_libraries() {
        let place = Place::new();
        let library = crate::support::preloaded(&place, "end_of_process.c");
        let told = "the libraries' end";
        let true_program = run(std::process::Command::new("true").env("LD_PRELOAD", &library)).success();
        assert!(true_program.stderr.contains(told), "the library is not preloaded");
        let ended = |command: &mut std::process::Command, code: i32| {
            let ended = run(command.env("LD_PRELOAD", &library));
            assert_eq!(ended.code, Some(code), "{}: {}", ended.status, ended.stderr);
            assert!(!ended.stderr.contains(told), "{}", ended.stderr);
            ended.stdout
        };
        let whole = run(&mut trainer("estimate --preset phi-1")).success().stdout;
        assert_eq!(ended(&mut trainer("estimate --preset phi-1"), 0), whole);
        ended(&mut place.train("wrong", "train.steps=none"), 2);
        ended(&mut place.train("diverging", "optimizer.lr=1e30 optimizer.warmup_steps=1"), 1);

        let endless = "train.steps=2 train.batch=100000 train.micro_batch=1";
        let mut running = Running::start(&place, place.train("run", endless).env("LD_PRELOAD", &library));
        assert!(running.wait_for(|running| running.said().contains("\nrun ")), "{}", running.said());
        send(&running, Signal::SIGTERM);
        assert!(running.wait_for(|running| running.said().contains("once more")), "{}", running.said());
        send(&running, Signal::SIGTERM);
        let (status, said) = running.end();
        assert!(status.code() == Some(130) && !said.contains(told), "{status}: {said}");
    }

    /// The second signal does not wait for a step that takes long.
    #[test]
    fn a_second_one_exits_at_once() {
        for (first, second) in [(Signal::SIGINT, Signal::SIGINT), (Signal::SIGTERM, Signal::SIGINT)] {
            let place = Place::new();
            let endless = "train.steps=2 train.batch=100000 train.micro_batch=1";
            let mut running = Running::start(&place, &mut place.train("run", endless));
            assert!(running.wait_for(|running| running.said().contains("\nrun ")), "{}", running.said());
            // Into the first step, which begins right after the table.
            std::thread::sleep(Duration::from_millis(100));
            send(&running, first);
            assert!(running.wait_for(|running| running.said().contains("once more")), "{}", running.said());
            let signalled = Instant::now();
            send(&running, second);
            let (status, said) = running.end();
            assert_eq!(status.code(), Some(130), "{said}");
            assert!(signalled.elapsed() < Duration::from_secs(5), "it took {:?} to exit", signalled.elapsed());
            assert_eq!(lines_so_far(&place.path("run")), 0, "the step was over already");
        }
    }
}
