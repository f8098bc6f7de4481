//! What people are shown of runs: the report's page (in a browser, where there is one), its live form, the list of runs,
//! TensorBoard's files.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wait_timeout::ChildExt;

use crate::support::{Place, data, lines_so_far, metrics, run, trainer};

/// No test waits longer than this for a moment to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Steps of a run that was never trained.
fn step(step: u64, loss: Option<f64>) -> Value {
    json!({
        "step": step, "loss": loss, "lr": 1e-3 / step as f64, "grad_norm": 1.0 + 0.25 * (step % 3) as f64,
        "loss_scale": if step < 20 { 65536.0 } else { 32768.0 }, "skipped": loss.is_none(), "tokens": 512 * step,
        "tokens_per_s": 1000.5, "mfu": null, "seconds": 0.5 * step as f64,
    })
}

/// A run of 40 steps: step 20 has no finite loss, steps 31 to 33 were written twice, and the last line is torn.
fn write_run(dir: &Path) -> Vec<Value> {
    let loss = |step: u64| (step != 20).then(|| 1.0 + 4.0 / step as f64);
    let mut lines: Vec<Value> = (31..=33).map(|i| step(i, Some(9.0))).collect();
    let kept: Vec<Value> = (1..=40).map(|i| step(i, loss(i))).collect();
    lines.splice(0..0, kept[..30].iter().cloned());
    lines.extend(kept[30..].iter().cloned());
    lines.push(json!({"step": 40, "val_loss": 1.125}));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("metrics.jsonl"), text + "{\"step\": 41, \"lo").unwrap();
    kept
}

/// The JSON in a page.
fn data_of(page: &str) -> Value {
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
}

fn column(records: &[Value], name: &str) -> Vec<Option<f32>> {
    records.iter().map(|record| record[name].as_f64().map(|value| value as f32)).collect()
}

#[track_caller]
fn numbers(values: &Value) -> Vec<Option<f32>> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().map(|value| value as f32)).collect()
}

#[test]
fn the_page_holds_what_a_run_wrote() {
    let place = Place::new();
    let sets = "train.steps=12 validation.every=6 checkpoint.every=6";
    run(place.train("run", sets).args(["--profile", "2"])).success();
    let ended = run(trainer("report").arg(place.path("run"))).success();
    let page = place.path("run/report.html");
    assert_eq!(ended.stdout.trim(), page.display().to_string());
    let page = data_of(&fs::read_to_string(page).unwrap());
    let (found, expected) = (&page["runs"][0], metrics(&place.path("run")));
    for name in ["loss", "lr", "grad_norm", "loss_scale", "tokens_per_s", "mfu", "seconds"] {
        assert_eq!(numbers(&found["curves"][name]), column(&expected.steps, name), "{name}");
    }
    let validation = &found["curves"]["validation"];
    assert_eq!(validation["step"], json!([6, 12]));
    assert_eq!(numbers(&validation["loss"]), column(&expected.validations, "val_loss"));
    let summary = &found["summary"];
    assert_eq!((&summary["status"], &summary["step"], &summary["steps"]), (&json!("finished"), &json!(12), &json!(12)));
    assert!(found["config"].as_array().unwrap().contains(&json!(["train.steps", "12"])), "{found}");
    let session = &found["sessions"][0];
    assert_eq!((&session["step"], &session["end"]["outcome"]), (&json!(0), &json!("finished")));
    let samples = found["samples"].as_array().unwrap();
    assert_eq!(samples.iter().map(|sample| &sample["step"]).collect::<Vec<_>>(), [6, 6, 12, 12]);
    for sample in samples {
        let [prompt, text] = ["prompt", "text"].map(|key| sample[key].as_str().unwrap());
        // Half a sequence of bytes, and as much behind it as the context holds.
        assert!(prompt.len() == 16 && (1..=16).contains(&text.chars().count()), "{sample}");
    }
    assert_ne!(samples[0]["prompt"], samples[1]["prompt"]);
    assert_eq!(samples[0]["prompt"], samples[2]["prompt"]);
    assert_eq!(found["parts"]["profiled_steps"], 2);
    assert!(found["parts"]["parts"].as_array().unwrap().iter().any(|part| part["part"] == "AdamW"), "{found}");
    #[cfg(target_os = "linux")]
    assert!(numbers(&found["curves"]["memory"]).iter().all(|memory| memory.unwrap() > 1e6), "{found}");
    assert!(session["device"].as_str().unwrap().starts_with("cpu: "), "{session}");
    #[cfg(target_os = "linux")]
    assert!(session["end"]["peak_memory"].as_u64().unwrap() > 1 << 20, "{session}");

    let other = run(trainer("report").arg(place.path("run")).arg("--out").arg(place.path("other.html"))).success();
    assert!(other.stdout.ends_with("other.html\n") && place.path("other.html").is_file());
    run(trainer("report").arg(place.path("run")).arg("--png").arg(place.path("loss.png"))).success();
    assert!(fs::read(place.path("loss.png")).unwrap().starts_with(b"\x89PNG"));
    run(trainer("report").arg(place.path("text"))).error(2, &["text: holds no run", "metrics.jsonl"]);
    run(trainer("report").arg(place.path("run")).arg("--out").arg(place.path("text"))).error(2, &["is a directory"]);
    fs::write(place.path("run/metrics.jsonl"), "{\"step\": 1}\n").unwrap();
    run(trainer("report").arg(place.path("run"))).error(2, &["line 1 is no record"]);
}

/// A browser on this machine.
fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    names.into_iter().find(runs)
}

/// What a browser makes of a page: what tests/data/report_check.js found, and no message on its console.
fn check_in(browser: &str, page: &Path) -> Value {
    let script = fs::read_to_string(data("report_check.js")).unwrap();
    let errors = "<script>window.errors = []; addEventListener('error', e => errors.push(e.message));</script>";
    let text = fs::read_to_string(page).unwrap().replacen("<head>", &format!("<head>{errors}"), 1);
    let (before, after) = text.rsplit_once("</body>").unwrap();
    let checked = page.with_extension("checked.html");
    fs::write(&checked, format!("{before}<script>{script}</script></body>{after}")).unwrap();
    let (profile, dom, log) = (page.with_extension("profile"), page.with_extension("dom"), page.with_extension("log"));
    let mut child = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--enable-logging=stderr", "--window-size=1200,900", "--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", checked.display()))
        .stdout(fs::File::create(&dom).unwrap())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    if child.wait_timeout(PATIENCE).unwrap().is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let log = fs::read_to_string(log).unwrap();
    let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:?}");
    let dom = fs::read_to_string(dom).unwrap();
    let (_, found) = dom.split_once("id=\"checked\" type=\"application/json\">").unwrap_or_else(|| panic!("{log}"));
    let found: Value = serde_json::from_str(found.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(found["errors"], json!([]));
    found
}

fn series<'a>(points: &'a Value, kind: &str, run: u64) -> &'a Value {
    let all = points.as_array().unwrap();
    all.iter().find(|one| one["kind"] == kind && one["run"] == run).unwrap_or_else(|| panic!("{kind}: {points}"))
}

/// Mean of the known values with the weight 0.9^distance: what ten steps of smoothing mean.
fn smoothed(values: &[Option<f32>]) -> Vec<Option<f64>> {
    let at = |i: usize| {
        let terms =
            values.iter().enumerate().filter_map(|(j, value)| Some((0.9f64.powi(i.abs_diff(j) as i32), (*value)?)));
        let (sum, weight) = terms.fold((0.0, 0.0), |sum, (w, value)| (sum.0 + w * f64::from(value), sum.1 + w));
        sum / weight
    };
    (0..values.len()).map(|i| values[i].map(|_| at(i))).collect()
}

#[test]
fn the_page_draws_the_metrics_in_a_browser() {
    let Some(browser) = chromium() else {
        eprintln!("SKIPPED the report in a browser: no chromium (apt-get install chromium)");
        return;
    };
    let place = Place::new();
    // Two runs of the same name, so that their paths tell them apart; and what is in those would end a script.
    let (first, second) = if cfg!(windows) { ("a/run", "b/run") } else { ("<b>a</script>", "b/script>") };
    let kept = write_run(&place.path(first));
    run(place.train(second, "train.steps=10 validation.every=5").args(["--profile", "1"])).success();
    let page = place.path("page.html");
    run(trainer("report").arg(place.path(first)).arg(place.path(second)).arg("--out").arg(&page)).success();
    let found = check_in(browser, &page);

    let steps: Vec<Option<f32>> = (1..=40).map(|i| Some(i as f32)).collect();
    for (chart, kind) in [
        ("loss", "smoothed"),
        ("lr", "plain"),
        ("grad_norm", "smoothed"),
        ("tokens_per_s", "smoothed"),
        ("loss_scale", "plain"),
    ] {
        let drawn = series(&found["charts"][chart]["points"], kind, 0);
        assert_eq!(numbers(&drawn["x"]), steps, "{chart}");
        assert_eq!(numbers(&drawn["y"]), column(&kept, chart), "{chart}");
        assert!(
            found["charts"][chart]["painted"].as_u64().unwrap() > 100,
            "{chart}: {}",
            found["charts"][chart]["painted"]
        );
    }
    assert!(found["charts"]["mfu"].is_null(), "a chart of nothing");
    let loss = &found["charts"]["loss"]["points"];
    assert_eq!(series(loss, "raw", 0)["shown"], false);
    assert_eq!(series(loss, "validation", 0)["x"], json!([40]));
    assert_eq!(series(loss, "validation", 0)["y"], json!([1.125]));
    let trained = metrics(&place.path(second));
    assert_eq!(numbers(&series(loss, "smoothed", 1)["y"]), column(&trained.steps, "loss"));
    assert_eq!(numbers(&series(loss, "validation", 1)["y"]), column(&trained.validations, "val_loss"));
    assert_eq!(series(&found["charts"]["loss_scale"]["points"], "skipped", 0)["x"], json!([20]));

    assert_eq!(found["smoothing"], 10);
    let values = column(&kept, "loss");
    let drawn = series(&found["smoothed"], "smoothed", 0)["y"].as_array().unwrap().clone();
    for (drawn, expected) in drawn.iter().map(Value::as_f64).zip(smoothed(&values)) {
        match (drawn, expected) {
            // The page has as many digits as tell one f32 from the next.
            (Some(drawn), Some(expected)) => assert!((drawn - expected).abs() < 1e-6, "{drawn} {expected}"),
            other => assert_eq!(other, (None, None)),
        }
    }
    let raw = series(&found["smoothed"], "raw", 0);
    assert!(raw["shown"] == true && numbers(&raw["y"]) == values);

    assert_eq!(found["log"]["distribution"], 3);
    let tip = found["tip"].as_str().expect("what the pointer is over");
    assert!(tip.contains("step 40") && tip.contains("1.1000") && tip.contains("1.1250"), "{tip}");
    // A quarter to a half of steps 1 to 40.
    let zoom = numbers(&found["zoom"]["x"]);
    let near = |value: Option<f32>, expected: f32| (value.unwrap() - expected).abs() < 0.5;
    assert!(near(zoom[0], 10.75) && near(zoom[1], 20.5), "{zoom:?}");
    for chart in found["zoom"]["everywhere"].as_array().unwrap() {
        assert_eq!(numbers(chart), zoom);
    }
    assert_eq!(found["zoom"]["reset"], true);
    assert!(found["unzoomed"]["x"].is_null());
    assert_eq!(found["unzoomed"]["everywhere"][0], json!([1, 40]));

    let names = [first, second].map(|run| place.path(run).display().to_string());
    assert_eq!(found["chips"], json!(names));
    for one in found["hidden"].as_array().unwrap() {
        assert_eq!(one["shown"], one["run"] == 1, "{one}");
    }
    assert_eq!(series(&found["tokens"], "plain", 0)["x"][39], 512 * 40);
    let text = found["text"].as_str().unwrap();
    let written = fs::read_to_string(place.path(second).join("samples.jsonl")).unwrap();
    let written: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |step: u64| -> Vec<String> {
        let whole = |sample: &&Value| sample["step"] == step;
        let joined = |sample: &Value| [&sample["prompt"], &sample["text"]].map(|text| text.as_str().unwrap()).concat();
        written.iter().filter(whole).map(joined).collect()
    };
    assert_eq!(found["samples"], json!({ "last": of(10), "first": of(5) }));
    assert!(text.contains("Time by part") && text.contains("attention backward"), "{text}");
    assert!(text.contains("Configuration") && text.contains("Sessions") && text.contains(&names[0]), "{text}");
    assert_eq!(found["wide"], false);
}

/// A program that goes on until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[test]
fn a_watched_page_follows_its_run() {
    let place = Place::new();
    let dir = place.path("run");
    write_run(&dir);
    let mut command = trainer("report --watch");
    let mut watch =
        Running(command.arg(&dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts"));
    let mut url = String::new();
    BufReader::new(watch.0.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
    let address = url.trim().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{url}");

    let (status, page) = get(&address, "/", &address);
    let shown = data_of(&page);
    assert_eq!((status, &shown["live"], &shown["runs"][0]["summary"]["step"]), (200, &json!(true), &json!(40)));
    let state = shown["state"].as_str().unwrap().to_owned();
    assert_eq!(get(&address, &format!("/data?state={state}"), &address).0, 204);
    // The torn line is whole now.
    let path = dir.join("metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap().replace("{\"step\": 41, \"lo", &format!("{}\n", step(41, Some(0.5))));
    fs::write(&path, text).unwrap();
    let (status, answer) = get(&address, &format!("/data?state={state}"), &address);
    assert!(status == 200 && answer.contains("\"step\":41"), "{answer:.400}");
    assert_eq!(get(&address, "/", "elsewhere.example").0, 403);
    assert_eq!(get(&address, "/metrics.jsonl", &address).0, 404);
    assert!(!dir.join("report.html").exists());
}

fn listing(place: &Place) -> Value {
    run(trainer("runs --json").arg(place.path("runs"))).success().json()
}

#[track_caller]
fn listed<'a>(listing: &'a Value, name: &str) -> &'a Value {
    let runs = listing["runs"].as_array().unwrap();
    runs.iter().find(|run| run["path"].as_str().unwrap().ends_with(name)).unwrap_or_else(|| panic!("{name}: {listing}"))
}

#[test]
fn the_list_says_how_each_run_stands() {
    let place = Place::new();
    run(&mut place.train("runs/finished", "train.steps=6 validation.every=3")).success();
    let failed = run(&mut place.train("runs/more/failed", "train.steps=6 optimizer.lr=1e30 optimizer.warmup_steps=0"));
    failed.error(1, &["not a finite number"]);
    fs::create_dir_all(place.path("runs/damaged")).unwrap();
    fs::write(place.path("runs/damaged/metrics.jsonl"), "nonsense\n").unwrap();
    let mut going = place.train("runs/going", "train.steps=1000000");
    let mut going = Running(going.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let begun = Instant::now();
    while lines_so_far(&place.path("runs/going")) < 2 {
        assert!(begun.elapsed() < PATIENCE && going.0.try_wait().unwrap().is_none(), "no step");
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = listing(&place);
    let finished = listed(&found, "finished");
    assert_eq!(
        (&finished["status"], &finished["step"], &finished["steps"]),
        (&json!("finished"), &json!(6), &json!(6))
    );
    let trained = metrics(&place.path("runs/finished"));
    assert_eq!(finished["loss"].as_f64().map(|loss| loss as f32), column(&trained.steps, "loss")[5]);
    let best = column(&trained.validations, "val_loss").into_iter().flatten().fold(f32::MAX, f32::min);
    assert_eq!(finished["best_val_loss"].as_f64().map(|loss| loss as f32), Some(best));
    assert!(finished["tokens_per_s"].as_f64().unwrap() > 0.0);
    let failed = listed(&found, "failed");
    assert_eq!(failed["status"], "failed");
    assert!(failed["message"].as_str().unwrap().contains("not a finite number"), "{failed}");
    assert_eq!(listed(&found, "going")["status"], "running");
    assert!(found["unreadable"][0]["message"].as_str().unwrap().contains("line 1"), "{found}");
    drop(going);
    let killed = listing(&place);
    let killed = listed(&killed, "going");
    assert!(killed["status"] == "failed" && killed["message"].as_str().unwrap().contains("killed"), "{killed}");

    let table = run(trainer("runs").arg(place.path("runs"))).success();
    let lines: Vec<String> =
        table.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for start in ["finished finished 6 of 6 ", "more/failed failed at step 1 ", "going failed at step "] {
        let start = start.replace('/', std::path::MAIN_SEPARATOR_STR);
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{start}: {}", table.stdout);
    }
    assert!(table.stderr.contains("damaged"), "{}", table.stderr);
    run(trainer("runs").arg(place.path("absent"))).error(2, &["is no directory"]);
}

fn event_files(run: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(run.join("tensorboard")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A run that went two steps beyond its last checkpoint before it was killed, and was resumed.
#[test]
fn tensorboard_shows_one_curve_of_a_resumed_run() {
    let place = Place::new();
    let dir = place.path("run");
    run(&mut place.train("run", "train.steps=8 validation.every=4 checkpoint.every=4 checkpoint.keep_last=9"))
        .success();
    assert_eq!(event_files(&dir).len(), 1);
    fs::remove_dir_all(dir.join("checkpoints/step-00000008")).unwrap();
    fs::write(dir.join("checkpoints/latest"), "step-00000004\n").unwrap();
    fs::write(dir.join("checkpoints/best"), "step-00000004\n").unwrap();
    let resume = "train.steps=6";
    let mut command = trainer("train --resume");
    crate::support::set(&mut command, resume);
    run(command.arg("--out").arg(&dir).arg("--data").arg(place.path("data"))).success();
    let files = event_files(&dir);
    assert_eq!(files.len(), 2);
    assert_eq!(run(trainer("train --resume --out").arg(&dir)).success().code, Some(0));
    assert_eq!(event_files(&dir), files, "a run that makes no step leaves no file");

    let python = if cfg!(windows) { "python" } else { "python3" };
    let python = std::env::var("TRAINER_TENSORBOARD_PYTHON").unwrap_or_else(|_| python.to_owned());
    let there = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED TensorBoard's own reader: no tensorboard for {python} (pip install tensorboard)");
        return;
    }
    let output = Command::new(python).arg(data("read_tensorboard.py")).arg(dir.join("tensorboard")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = metrics(&dir);
    assert_eq!(expected.steps.len(), 6);
    let tags = [
        ("loss/train", "loss"),
        ("optimizer/lr", "lr"),
        ("optimizer/grad_norm", "grad_norm"),
        ("optimizer/loss_scale", "loss_scale"),
        ("speed/tokens_per_s", "tokens_per_s"),
    ];
    for (tag, name) in tags {
        let points: Vec<(u64, Option<f32>)> = scalars(&shown[tag]);
        assert_eq!(points, (1..).zip(column(&expected.steps, name)).collect::<Vec<_>>(), "{tag}");
    }
    assert_eq!(scalars(&shown["optimizer/skipped"]), (1..=6).map(|step| (step, Some(0.0))).collect::<Vec<_>>());
    let steps = expected.validations.iter().map(|record| record["step"].as_u64().unwrap());
    let validations: Vec<_> = steps.zip(column(&expected.validations, "val_loss")).collect();
    assert_eq!(scalars(&shown["loss/validation"]), validations);
}

fn scalars(points: &Value) -> Vec<(u64, Option<f32>)> {
    let point = |point: &Value| (point[0].as_u64().unwrap(), point[1].as_f64().map(|value| value as f32));
    points.as_array().unwrap().iter().map(point).collect()
}

#[test]
fn training_goes_on_without_tensorboard() {
    let place = Place::new();
    fs::create_dir_all(place.path("run")).unwrap();
    fs::write(place.path("run/tensorboard"), "in the way").unwrap();
    let ended = run(&mut place.train("run", "train.steps=5")).success();
    assert_eq!(ended.stderr.matches("goes on without TensorBoard").count(), 1, "{}", ended.stderr);
    assert_eq!(metrics(&place.path("run")).steps.len(), 5);
}

#[test]
fn shells_and_man_know_every_command() {
    let commands = ["prepare", "train", "report", "runs", "completions"];
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&mut trainer(&format!("completions {shell}"))).success().stdout;
        commands.iter().for_each(|command| assert!(script.contains(command), "{shell}: {command}"));
    }
    let place = Place::new();
    let page = run(&mut trainer("man")).success().stdout;
    assert!(page.contains(".TH trainer 1") && page.contains("SUBCOMMANDS"), "{page}");
    run(trainer("man --out").arg(place.path("man"))).success();
    for command in commands {
        let page = fs::read_to_string(place.path("man").join(format!("trainer-{command}.1"))).unwrap();
        // Only commands that use a device have options for one.
        let device = command == "train";
        assert!(page.contains("trainer\\-") && page.contains("\\-\\-backend") == device, "{page}");
    }
}
