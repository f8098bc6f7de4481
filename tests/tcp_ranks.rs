//! Several ranks without MPI: started by `--devices`, or by whoever sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; on
//! this machine, and in network namespaces that stand for several.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Place, furthest_apart, has_wgpu, lines_so_far, metrics, run, set, trainer, trainer_on, whole_checkpoints,
    whole_latest,
};

/// fp32 sums in another order, as in `parallel`.
const SAME: f64 = 1e-5;
/// The same on software Vulkan, whose products add up in another order too.
const SAME_WGPU: f64 = 1e-5;
/// The others of a killed rank end this soon, on a busy machine: 0.2 s measured.
const BOUND: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// `--devices N` of a command.
fn devices(ranks: usize, of: &Command) -> Command {
    let mut command = Command::new(of.get_program());
    command.args(of.get_args()).args(["--devices", &ranks.to_string()]).stdin(Stdio::null());
    command
}

#[test]
fn devices_train_together_and_an_exchange_may_overlap_with_work() {
    let place = Place::new();
    let sets = "train.steps=30 train.micro_batch=2 checkpoint.every=10";
    run(&mut place.train("one", sets)).success();
    let one = metrics(&place.path("one")).losses();
    for zero in ["0", "1", "2"] {
        let (beside, behind) = (format!("beside-{zero}"), format!("behind-{zero}"));
        let mut train = place.train(&beside, sets);
        let summary = run(&mut devices(2, train.args(["--zero", zero, "--json"]))).success().json();
        run(&mut devices(2, place.train(&behind, sets).args(["--zero", zero, "--no-overlap"]))).success();
        let (two, waited) = (metrics(&place.path(&beside)), metrics(&place.path(&behind)));
        let apart = furthest_apart(&two.losses(), &one);
        let share = |metrics: &crate::support::Metrics| -> Vec<f64> {
            metrics.steps.iter().map(|step| step["exposed"].as_f64().unwrap()).collect()
        };
        eprintln!(
            "ZeRO {zero}: losses of 2 ranks within {apart:.1e} of one process's; {:.2} of the exchanges waited for",
            summary["communication"]["exposed"].as_f64().unwrap()
        );
        assert!(apart < SAME);
        // The same bits, whenever the exchanges are made.
        assert_eq!(two.losses(), waited.losses());
        let model = |out: &str| fs::read(whole_latest(&place.path(out)).join("model/model.safetensors")).unwrap();
        assert!(model(&beside) == model(&behind));
        assert!(share(&waited).iter().all(|share| *share == 1.0));
        assert!(share(&two).iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(!place.path(&beside).join(".ranks").exists());
    }
}

/// Ranks that this test has started.
struct Job<'a> {
    place: &'a Place,
    out: &'static str,
    children: Vec<Child>,
}

impl<'a> Job<'a> {
    fn start(place: &'a Place, out: &'static str, commands: Vec<Command>) -> Self {
        let spawn = |(index, mut command): (usize, Command)| {
            let log = File::create(place.path(&format!("stderr-{index}.txt"))).unwrap();
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
        };
        Self { place, out, children: commands.into_iter().enumerate().map(spawn).collect() }
    }

    fn said(&self) -> String {
        let logs = (0..self.children.len()).map(|index| self.place.path(&format!("stderr-{index}.txt")));
        logs.map(|log| fs::read_to_string(log).unwrap()).collect()
    }

    fn errors(&self) -> Vec<String> {
        self.said().lines().filter(|line| line.starts_with("error")).map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait_until(&mut self, moment: impl Fn(&Path) -> bool) {
        let (run, started) = (self.place.path(self.out), Instant::now());
        while !moment(&run) {
            assert!(self.children.iter_mut().all(|child| child.try_wait().unwrap().is_none()), "{}", self.said());
            assert!(started.elapsed() < PATIENCE, "the moment did not come: {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The process of a rank, as its sign of life tells.
    fn process(&self, rank: usize) -> String {
        let sign = self.place.path(self.out).join(format!(".ranks/rank-{rank:05}"));
        fs::read_to_string(sign).unwrap().trim().rsplit(' ').next().unwrap().to_owned()
    }

    /// Exit codes, and how long it took until all had ended.
    #[track_caller]
    fn end(&mut self) -> (Vec<Option<i32>>, Duration) {
        let started = Instant::now();
        let mut codes = Vec::new();
        for child in 0..self.children.len() {
            loop {
                if let Some(status) = self.children[child].try_wait().unwrap() {
                    codes.push(status.code());
                    break;
                }
                assert!(started.elapsed() < PATIENCE, "it did not end: {}", self.said());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        (codes, started.elapsed())
    }
}

/// A test that fails leaves no ranks behind.
impl Drop for Job<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(process: &str, signal: &str) {
    assert!(Command::new("kill").args([signal, process]).status().unwrap().success());
}

/// Too long to end by itself.
const LONG: &str = "train.steps=100000 train.micro_batch=2 checkpoint.every=20 optimizer.lr=1e-3";

#[test]
fn the_starter_ends_all_says_why_and_passes_signals_on() {
    let place = Place::new();
    // A batch of 8 in micro-batches of 2 does not divide among 3.
    let refused = run(&mut devices(3, &place.train("refused", LONG)));
    refused.error(2, &["3 ranks", "multiple"]);
    let start = |resume: bool| {
        let mut train = place.train("run", &format!("{LONG} train.batch=12"));
        train.args(["--timeout", "2"]);
        if resume {
            train.arg("--resume");
        }
        let before = lines_so_far(&place.path("run"));
        let mut job = Job::start(&place, "run", vec![devices(3, &train)]);
        job.wait_until(|run| lines_so_far(run) > before + 40);
        job
    };
    for rank in [0, 2] {
        let mut job = start(rank > 0);
        signal(&job.process(rank), "-KILL");
        let (codes, took) = job.end();
        eprintln!("rank {rank} killed: all ended after {:.2} s", took.as_secs_f64());
        assert!(codes == [Some(1)] && took < BOUND, "{codes:?}: {}", job.said());
        let errors = job.errors();
        assert!(matches!(&errors[..], [error] if error.contains(&format!("rank {rank} on"))), "{errors:?}");
        assert!(!whole_checkpoints(&place.path("run")).is_empty());
    }

    let mut job = start(true);
    signal(&job.process(1), "-STOP");
    let (codes, took) = job.end();
    eprintln!("rank 1 stopped: found, and all ended, after {:.2} s (--timeout 2)", took.as_secs_f64());
    assert!(codes == [Some(1)] && took < Duration::from_secs(2) + BOUND, "{codes:?}: {}", job.said());
    let errors = job.errors();
    assert!(matches!(&errors[..], [error] if error.contains("--timeout 2: rank 1 (")), "{errors:?}");

    // The starter's signal: all make the step, save, and end in peace.
    let mut job = start(true);
    signal(&job.children[0].id().to_string(), "-TERM");
    assert_eq!(job.end().0, [Some(0)], "{}", job.said());
    assert!(job.said().contains("go on with: trainer train") && job.errors().is_empty(), "{}", job.said());
    let checkpoint = whole_latest(&place.path("run"));
    assert!(checkpoint.ends_with(format!("step-{:08}", metrics(&place.path("run")).steps.len())));

    // The starter is gone: the ranks save and end too.
    let mut job = start(true);
    let ranks: Vec<String> = (0..3).map(|rank| job.process(rank)).collect();
    signal(&job.children[0].id().to_string(), "-KILL");
    job.end();
    let started = Instant::now();
    let alive = |process: &String| Path::new(&format!("/proc/{process}/cmdline")).exists();
    while cfg!(target_os = "linux") && ranks.iter().any(alive) {
        assert!(started.elapsed() < PATIENCE, "ranks outlive their starter");
        std::thread::sleep(Duration::from_millis(20));
    }
    whole_latest(&place.path("run"));
}

/// As torchrun starts them; `inside` is what a rank's command begins with.
fn torchrun(
    of: &Command,
    ranks: usize,
    master: &str,
    port: u16,
    inside: impl Fn(usize) -> Vec<String>,
) -> Vec<Command> {
    let rank = |rank: usize| {
        let words = inside(rank);
        let mut command = match words.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(of.get_program());
                command
            }
            None => Command::new(of.get_program()),
        };
        command.args(of.get_args()).env("RAYON_NUM_THREADS", "1");
        command.env("RANK", rank.to_string()).env("LOCAL_RANK", "0").env("WORLD_SIZE", ranks.to_string());
        command.env("MASTER_ADDR", master).env("MASTER_PORT", port.to_string());
        command
    };
    (0..ranks).map(rank).collect()
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn ranks_that_torchrun_started_find_each_other() {
    let place = Place::new();
    let sets = "train.steps=10 train.micro_batch=2";
    let losses = place.losses("one", sets);
    let port = free_port();
    let mut job = Job::start(&place, "two", torchrun(&place.train("two", sets), 2, "127.0.0.1", port, |_| Vec::new()));
    assert_eq!(job.end().0, [Some(0); 2], "{}", job.said());
    assert!(furthest_apart(&metrics(&place.path("two")).losses(), &losses) < SAME);

    // One that never comes.
    let alone =
        torchrun(place.train("alone", sets).args(["--timeout", "1"]), 2, "127.0.0.1", free_port(), |_| Vec::new());
    let mut alone = alone.into_iter().nth(1).unwrap();
    run(alone.stdin(Stdio::null())).error(1, &["rank 1 of 2 does not find the others", "MASTER_ADDR"]);
    assert!(!place.path("alone").exists());
}

/// Two network namespaces with a cable between them.
struct Cable([String; 2]);

impl Cable {
    /// `None`, which it says, where this is not allowed.
    fn new() -> Option<Self> {
        let names = ["a", "b"].map(|end| format!("trainer-{}-{end}", std::process::id()));
        let cable = Self(names);
        let [a, b] = &cable.0;
        let ends = ["a", "b"].map(|end| format!("t{}{end}", std::process::id()));
        let steps = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("link add {} type veth peer name {}", ends[0], ends[1]),
            format!("link set {} netns {a} name cable", ends[0]),
            format!("link set {} netns {b} name cable", ends[1]),
            format!("-n {a} addr add 10.97.0.1/24 dev cable"),
            format!("-n {b} addr add 10.97.0.2/24 dev cable"),
            format!("-n {a} link set lo up"),
            format!("-n {b} link set lo up"),
            format!("-n {a} link set cable up"),
            format!("-n {b} link set cable up"),
        ];
        for step in steps {
            let output = Command::new("ip").args(step.split(' ')).output();
            if !output.as_ref().is_ok_and(|output| output.status.success()) {
                eprintln!("SKIPPED: no network namespaces here (ip {step}: {output:?})");
                return None;
            }
        }
        Some(cable)
    }

    fn inside(&self, rank: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.0[rank]].map(str::to_owned).to_vec()
    }

    fn cut(&self) {
        let status = Command::new("ip").args(["-n", &self.0[0], "link", "set", "cable", "down"]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}

/// Two machines as far as the network goes; then the cable is cut, and nobody hears anything any more.
#[test]
fn two_machines_and_a_network_that_goes_down() {
    let Some(cable) = Cable::new() else { return };
    let place = Place::new();
    let sets = "train.steps=10 train.micro_batch=2";
    let losses = place.losses("one", sets);
    let two = torchrun(&place.train("two", sets), 2, "10.97.0.1", 29_500, |rank| cable.inside(rank));
    let mut job = Job::start(&place, "two", two);
    assert_eq!(job.end().0, [Some(0); 2], "{}", job.said());
    assert!(furthest_apart(&metrics(&place.path("two")).losses(), &losses) < SAME);

    let mut train = place.train("cut", LONG);
    train.args(["--timeout", "2"]);
    let ranks = torchrun(&train, 2, "10.97.0.1", 29_501, |rank| cable.inside(rank));
    let mut job = Job::start(&place, "cut", ranks);
    job.wait_until(|run| lines_so_far(run) > 40);
    cable.cut();
    let (codes, took) = job.end();
    eprintln!("cable cut: found, and both ended, after {:.2} s (--timeout 2)", took.as_secs_f64());
    assert!(codes == [Some(1); 2] && took < Duration::from_secs(2) + BOUND, "{codes:?}: {}", job.said());
    let errors = job.errors();
    assert!(errors[0].contains("the network between them may be down"), "{errors:?}");
    assert!(!whole_checkpoints(&place.path("cut")).is_empty());
}

/// Ranks that share a software Vulkan device, as many as TRAINER_WGPU_RANKS says.
#[test]
fn wgpu_ranks_train_as_one_process_does() {
    if !has_wgpu("ranks") {
        return;
    }
    let Ok(ranks) = std::env::var("TRAINER_WGPU_RANKS") else {
        eprintln!("SKIPPED: ranks on wgpu take minutes; TRAINER_WGPU_RANKS=2, or up to 4, asks for them");
        return;
    };
    let ranks: usize = ranks.parse().unwrap();
    let place = Place::new();
    // 12 divides among 1 to 4 ranks.
    let batch = if ranks > 2 { 12 } else { 4 };
    let sets = format!("train.steps=4 train.batch={batch} train.micro_batch=1 checkpoint.every=2 model.layers=1");
    let sets = sets.as_str();
    let started = Instant::now();
    run(&mut place.train_on("wgpu", "one", sets)).success();
    let losses = metrics(&place.path("one")).losses();
    eprintln!("one process: {:.1} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    run(&mut devices(ranks, &place.train_on("wgpu", "many", sets))).success();
    let apart = furthest_apart(&metrics(&place.path("many")).losses(), &losses);
    eprintln!("{ranks} ranks: losses within {apart:.1e}, {:.1} s", started.elapsed().as_secs_f64());
    assert!(apart < SAME_WGPU);
    for others in (1..ranks).filter(|others| batch % others == 0) {
        use trainer::checkpoint::layout::Pointer;
        fs::write(Pointer::Latest.path(&place.path("many")), "step-00000002\n").unwrap();
        let mut resume = trainer_on("wgpu", "train --resume");
        resume.arg("--out").arg(place.path("many"));
        run(&mut devices(others, &resume)).success();
        let apart = furthest_apart(&metrics(&place.path("many")).losses(), &losses);
        eprintln!("its checkpoint of step 2, gone on from by {others}: losses within {apart:.1e}");
        assert!(apart < SAME_WGPU);
    }
}

/// A launch that does not say where to meet, or that more devices ask for than there are.
#[test]
fn what_cannot_be_started_is_one_clear_error() {
    let place = Place::new();
    let mut torchrun = place.train("torchrun", "");
    run(torchrun.envs([("RANK", "0"), ("WORLD_SIZE", "2")])).error(2, &["torchrun", "2 ranks", "MASTER_ADDR"]);
    let mut nccl = place.train("nccl", "");
    run(nccl.args(["--collectives", "nccl"])).error(2, &["--collectives nccl", "--backend cuda"]);
    run(&mut trainer("devices --devices 2")).error(2, &["--devices is for train"]);
    let mut count = place.train("count", "");
    set(&mut count, "train.micro_batch=1");
    let launched = [("TRAINER_RANK", "0"), ("TRAINER_RANKS", "4"), ("TRAINER_MASTER", "127.0.0.1:1")];
    run(count.args(["--devices", "2"]).envs(launched)).error(2, &["--devices is 2", "4 ranks"]);
    for out in ["torchrun", "nccl", "count"] {
        assert!(!place.path(out).exists());
    }
}
