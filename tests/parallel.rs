//! Several ranks train the same model as one does: the same losses at every stage of ZeRO, checkpoints that any number of
//! ranks goes on from, and no rank that outlives another.

/// Launched by something that this program has no engine for, it says how to get one.
#[test]
#[cfg(not(feature = "mpi"))]
fn a_launch_without_its_engine_is_one_clear_error() {
    use crate::support::{Place, run};

    let place = Place::new();
    let mut mpirun = place.train("mpirun", "");
    let launched = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "4")];
    run(mpirun.envs(launched)).error(2, &["mpirun started 4 ranks", "--features mpi"]);
    assert!(!place.path("mpirun").exists());
}

#[cfg(feature = "mpi")]
mod ranks {
    use std::fs::{self, File};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use trainer::checkpoint::latest;
    use trainer::checkpoint::layout::Pointer;
    use trainer_backends::dropout::mix64;

    use crate::support::{Ended, Place, furthest_apart, lines_so_far, metrics, run, whole_checkpoints, whole_latest};

    /// fp32 sums in another order: some units in the last place (6e-8) of a loss, which 50 steps of AdamW on a small model
    /// pass on and do not amplify.
    const SAME: f64 = 1e-5;
    /// A master weight that differs in its last place may round to the next fp16 (2^-11 of it), here and there: 3e-6 measured.
    const SAME_FP16: f64 = 5e-5;
    /// mpirun ends the other ranks this soon after one was killed or has aborted, on a busy machine: 2.1 s measured.
    const BOUND: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(60);
    /// A batch that divides over 1 to 4 ranks, dropout and validation on.
    const RUN: &str = "train.steps=40 train.batch=12 train.micro_batch=1 validation.every=20 checkpoint.every=10 \
                       checkpoint.keep_last=9";

    fn has_mpirun() -> bool {
        let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !found {
            eprintln!("SKIPPED: no mpirun (apt-get install openmpi-bin)");
        }
        found
    }

    /// `mpirun -np N` of a command, on this machine alone.
    fn mpirun(ranks: usize, of: &Command) -> Command {
        let mut command = Command::new("mpirun");
        command.args(["-np", &ranks.to_string()]);
        prepared(command.args(["--oversubscribe", "--bind-to", "none"]).arg(of.get_program()).args(of.get_args()));
        command
    }

    /// One thread a rank, no network, root allowed: what a container needs.
    fn prepared(command: &mut Command) {
        command.env("RAYON_NUM_THREADS", "1").env("OMPI_MCA_btl", "self,vader").stdin(Stdio::null());
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }

    /// The one line of error among what mpirun itself says.
    #[track_caller]
    fn error(ended: &Ended, code: i32, words: &[&str]) {
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", ended.stderr);
        for word in words {
            assert!(errors[0].contains(word), "no \"{word}\" in: {}", errors[0]);
        }
    }

    /// The lines of a rank's log that tell its weights' checksums.
    fn checksums(logs: &Path, rank: usize) -> Vec<String> {
        let text = fs::read_to_string(logs.join(format!("rank-{rank:05}.log"))).unwrap();
        text.lines().filter(|line| line.contains(": weights ")).map(str::to_owned).collect()
    }

    #[test]
    fn the_losses_of_one_process_at_every_stage_with_the_bytes_of_the_formula() {
        if !has_mpirun() {
            return;
        }
        let place = Place::new();
        let sets = "train.steps=50 train.micro_batch=2 validation.every=25";
        run(&mut place.train("one", sets)).success();
        let one = metrics(&place.path("one"));
        for zero in 0..=2u64 {
            let (out, logs) = (format!("two-{zero}"), place.path(&format!("logs-{zero}")));
            let mut train = place.train(&out, sets);
            train.args(["--zero", &zero.to_string(), "--json", "--log-dir"]).arg(&logs);
            let summary = run(&mut mpirun(2, &train)).success().json();
            let two = metrics(&place.path(&out));
            let apart = furthest_apart(&two.losses(), &one.losses());
            eprintln!("ZeRO {zero}: losses of 2 ranks within {apart:.1e} of one process's");
            assert!(apart < SAME);
            let validations = |metrics: &crate::support::Metrics| -> Vec<f64> {
                metrics.validations.iter().map(|record| record["val_loss"].as_f64().unwrap()).collect()
            };
            assert!(furthest_apart(&validations(&two), &validations(&one)) < SAME);
            assert!(two.steps.iter().all(|step| step["communication"].as_f64().is_some_and(|share| share <= 1.0)));

            let sums = checksums(&logs, 0);
            assert!(sums.len() >= 3, "at the start and two saves: {sums:?}");
            assert_eq!(sums, checksums(&logs, 1));
            assert!(!place.path(&out).join(".ranks").exists());

            // (n-1)/n of the buffers' bytes for each exchange of them: B/2 for two ranks. Parts differ by 256 elements at most.
            let report = &summary["communication"];
            let parameters = report["parameters"].as_u64().unwrap();
            let (half, slack) = (parameters * 4 / 2 * 50, 4 * 256 * 4 * 50);
            let micro_batches = 2;
            let expected = match zero {
                0 => [("all_reduce", 2 * half), ("reduce_scatter", 0), ("all_gather", 0)],
                1 => [("all_reduce", 0), ("reduce_scatter", half), ("all_gather", half)],
                _ => [("all_reduce", 0), ("reduce_scatter", micro_batches * half), ("all_gather", half)],
            };
            for (operation, bytes) in expected {
                let found = report["step_bytes"][operation].as_u64().unwrap();
                assert!(found.abs_diff(bytes) <= micro_batches * slack, "{operation}: {found}, expected {bytes}");
            }
        }
    }

    #[test]
    fn a_checkpoint_of_any_number_of_ranks_is_gone_on_from_by_any_other() {
        if !has_mpirun() {
            return;
        }
        let place = Place::new();
        run(&mut place.train("one", RUN)).success();
        let losses = metrics(&place.path("one")).losses();
        run(&mut mpirun(4, &place.train("four", RUN))).success();
        assert!(furthest_apart(&metrics(&place.path("four")).losses(), &losses) < SAME);
        assert!(whole_latest(&place.path("four")).join("optimizer-00003-of-00004.safetensors").is_file());
        for (from, ranks) in [("four", 1), ("four", 2), ("four", 3), ("one", 2)] {
            let out = format!("{from}-{ranks}");
            copy(&place.path(from), &place.path(&out));
            // As one goes back to an older checkpoint by hand.
            fs::write(Pointer::Latest.path(&place.path(&out)), "step-00000020\n").unwrap();
            let mut train = crate::support::trainer("train --resume");
            train.arg("--out").arg(place.path(&out));
            let said = match ranks {
                1 => run(&mut train),
                _ => run(&mut mpirun(ranks, &train)),
            };
            assert!(said.success().stderr.contains("the checkpoint of step 20"));
            let apart = furthest_apart(&metrics(&place.path(&out)).losses()[20..], &losses[20..]);
            eprintln!("a checkpoint of {from} rank(s), gone on from by {ranks}: losses within {apart:.1e}");
            assert!(apart < SAME);
        }
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &to.join(entry.file_name())),
                false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            }
        }
    }

    /// Master weights apart from the working ones; the first steps overflow, on all ranks together.
    #[test]
    fn fp16_overflows_on_all_ranks_together() {
        if !has_mpirun() {
            return;
        }
        let place = Place::new();
        let sets = "train.steps=24 train.micro_batch=2 train.precision=fp16 train.loss_scale=1e9 checkpoint.every=12";
        run(&mut place.train("one", sets)).success();
        let one = metrics(&place.path("one"));
        for zero in ["1", "2"] {
            run(&mut mpirun(2, place.train(zero, sets).args(["--zero", zero]))).success();
            let two = metrics(&place.path(zero));
            let scales = |metrics: &crate::support::Metrics| -> Vec<_> {
                metrics.steps.iter().map(|step| (step["skipped"].clone(), step["loss_scale"].clone())).collect()
            };
            assert!(two.skipped() > 0 && scales(&two) == scales(&one));
            assert!(furthest_apart(&two.losses(), &one.losses()) < SAME_FP16);
            // And back to one process, whose file holds whole tensors.
            fs::write(Pointer::Latest.path(&place.path(zero)), "step-00000012\n").unwrap();
            run(crate::support::trainer("train --resume").arg("--out").arg(place.path(zero))).success();
            assert!(furthest_apart(&metrics(&place.path(zero)).losses(), &one.losses()) < SAME_FP16);
        }
    }

    #[test]
    fn ranks_that_differ_are_refused_before_anything_is_written() {
        if !has_mpirun() {
            return;
        }
        let place = Place::new();
        let (first, other) = (place.train("differ", ""), place.train("differ", "optimizer.lr=0.5"));
        let mut command = mpirun(1, &first);
        command.args([":", "-np", "1"]).arg(other.get_program()).args(other.get_args());
        error(&run(&mut command), 2, &["the ranks differ in optimizer.lr", "0.01 on rank 0", "0.5 on rank 1"]);
        // What is wrong on all of them is said once, in the words of one process.
        error(&run(&mut mpirun(2, &place.train("differ", "train.batch=9 train.micro_batch=3"))), 2, &["9", "2 ranks"]);
        error(&run(&mut mpirun(2, &place.train("differ", "train.stepz=9"))), 2, &["did you mean steps?"]);
        assert!(!place.path("differ").exists());
    }

    /// mpirun with its ranks at work.
    struct Job<'a> {
        place: &'a Place,
        child: Child,
        out: &'static str,
    }

    impl<'a> Job<'a> {
        /// Starts, or goes on with, 2 ranks at a run that is too long to end by itself.
        fn start(place: &'a Place, out: &'static str, resume: bool) -> Self {
            let sets =
                "train.steps=100000 train.micro_batch=2 checkpoint.every=20 validation.every=50 optimizer.lr=1e-3";
            let mut train = place.train(out, sets);
            train.args(["--timeout", "2"]);
            if resume {
                train.arg("--resume");
            }
            let mut command = mpirun(2, &train);
            let log = File::create(place.path("stderr.txt")).unwrap();
            let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
            let mut job = Self { place, child, out };
            let before = latest(&job.run()).unwrap();
            job.wait_until(|job| latest(&job.run()).is_ok_and(|found| found != before && found.is_some()));
            job
        }

        fn run(&self) -> std::path::PathBuf {
            self.place.path(self.out)
        }

        fn said(&self) -> String {
            fs::read_to_string(self.place.path("stderr.txt")).unwrap()
        }

        #[track_caller]
        fn wait_until(&mut self, moment: impl Fn(&Self) -> bool) {
            let started = Instant::now();
            while !moment(self) {
                assert!(self.child.try_wait().unwrap().is_none(), "it ended by itself: {}", self.said());
                assert!(started.elapsed() < PATIENCE, "the moment did not come: {}", self.said());
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        /// Sends a signal to a rank, whose process its sign of life tells.
        fn signal(&self, rank: usize, signal: &str) {
            let sign = fs::read_to_string(self.run().join(format!(".ranks/rank-{rank:05}"))).unwrap();
            let process = sign.trim().rsplit(' ').next().unwrap().to_owned();
            assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
        }

        /// Waits for the end of all: the exit code and how long it took.
        #[track_caller]
        fn end(&mut self) -> (Option<i32>, Duration) {
            let started = Instant::now();
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return (status.code(), started.elapsed());
                }
                assert!(started.elapsed() < PATIENCE, "it did not end: {}", self.said());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// A test that fails leaves no ranks behind.
    impl Drop for Job<'_> {
        fn drop(&mut self) {
            if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
                let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
                let _ = self.child.wait();
            }
        }
    }

    #[test]
    fn killed_hung_and_stopped_ranks_end_all_and_the_run_goes_on() {
        if !has_mpirun() {
            return;
        }
        let place = Place::new();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = std::env::var("TRAINER_KILL_SEED").map_or(now, |seed| seed.parse().unwrap());
        eprintln!("TRAINER_KILL_SEED={seed}");
        for kill in 0..KILLS {
            let mut job = Job::start(&place, "run", kill > 0);
            let draw = mix64(seed ^ mix64(kill));
            std::thread::sleep(Duration::from_micros(draw % 200_000));
            let rank = (draw >> 32) as usize % 2;
            job.signal(rank, "-KILL");
            let (code, took) = job.end();
            eprintln!("kill {kill}: rank {rank}; all ended after {:.2} s with code {code:?}", took.as_secs_f64());
            assert!(code != Some(0) && took < BOUND, "{}", job.said());
            whole_checkpoints(&place.path("run"));
        }

        let mut job = Job::start(&place, "run", true);
        job.signal(1, "-STOP");
        let (code, took) = job.end();
        eprintln!("stopped process: found, and all ended, after {:.2} s (--timeout 2)", took.as_secs_f64());
        let said = job.said();
        assert!(code == Some(1) && took < Duration::from_secs(2) + BOUND, "{code:?}: {said}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(matches!(errors[..], [error] if error.contains("--timeout 2: rank 1 (")), "{said}");

        // Any rank's signal: all make the step, save, and end in peace.
        let mut job = Job::start(&place, "run", true);
        job.signal(1, "-TERM");
        assert_eq!(job.end().0, Some(0), "{}", job.said());
        let said = job.said();
        assert!(said.contains("go on with: trainer train") && !said.contains("error"), "{said}");
        let checkpoint = whole_latest(&place.path("run"));
        assert!(checkpoint.ends_with(format!("step-{:08}", metrics(&place.path("run")).steps.len())));
        assert!(lines_so_far(&place.path("run")) > 0 && !place.path("run").join(".ranks").exists());
    }

    const KILLS: u64 = 3;
}
