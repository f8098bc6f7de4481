//! What a run does: it learns, it does the same thing each time, and neither the split of a batch, recomputation, the
//! backend nor the precision changes what it computes.

use std::fs;

use serde_json::Value;

use crate::support::{
    Place, furthest_apart, has_wgpu, metrics, run, set, trainer, whole_checkpoints, whole_latest, write_shard,
};

#[test]
fn learns_and_does_the_same_each_time() {
    let place = Place::new();
    let losses = place.losses("first", "");
    // ln 257 = 5.55 at first.
    assert!((losses[0] - 5.55).abs() < 0.1 && losses[39] < 1.5, "{losses:?}");
    assert_eq!(place.losses("second", ""), losses);
    let weights =
        |out: &str| fs::read(place.path(out).join("checkpoints/step-00000040/model/model.safetensors")).unwrap();
    assert!(weights("first") == weights("second"), "other weights");
    // Each source of randomness is one that counts.
    for sets in
        ["train.seed=1", "data.seed=1", "model.dropout=0.2", "model.attention_dropout=0", "model.residual_dropout=0"]
    {
        let other = place.losses(sets, &format!("{sets} train.steps=2"));
        assert!(furthest_apart(&other, &losses[..2]) > 1e-4, "{sets} changes nothing: {other:?}");
    }
}

/// The masks are those of a sequence's place in the whole batch, whatever micro-batch it is in; what remains is the order
/// of fp32 sums.
#[test]
fn the_split_of_a_batch_does_not_matter() {
    let place = Place::new();
    let losses = |micro_batch: usize| {
        place.losses(&format!("micro-{micro_batch}"), &format!("train.steps=10 train.micro_batch={micro_batch}"))
    };
    let whole = losses(8);
    for micro_batch in [1, 2, 4] {
        let error = furthest_apart(&losses(micro_batch), &whole);
        eprintln!("micro-batches of {micro_batch}: losses within {error:.1e}");
        assert!(error < 1e-5, "micro-batches of {micro_batch}: {error}");
    }
    let without = place.losses("without", "train.steps=10 train.micro_batch=8 model.dropout=0");
    assert!(furthest_apart(&without, &whole) > 1e-3, "dropout was not on");
}

#[test]
fn recomputation_gives_the_same_bits() {
    let place = Place::new();
    for precision in ["fp32", "bf16"] {
        let sets = format!("train.steps=10 train.precision={precision}");
        let kept = place.losses(&format!("kept-{precision}"), &sets);
        for recompute in ["activation", "block"] {
            let again =
                place.losses(&format!("{recompute}-{precision}"), &format!("{sets} train.recompute={recompute}"));
            assert_eq!(again, kept, "{recompute} in {precision}");
        }
    }
}

/// The mean over 8 x 32 tokens of losses from two orders of fp32 sums, with ten updates between them.
#[test]
fn cpu_and_wgpu_agree() {
    if !has_wgpu("training parity with cpu") {
        return;
    }
    let place = Place::new();
    let sets = "train.steps=10";
    let cpu = place.losses("cpu", sets);
    run(&mut place.train_on("wgpu", "wgpu", sets)).success();
    let error = furthest_apart(&metrics(&place.path("wgpu")).losses(), &cpu);
    eprintln!("ten steps on cpu and wgpu: losses within {error:.1e}");
    assert!(error < 1e-3, "{error}");
    let other_masks = place.losses("without", "train.steps=10 model.dropout=0");
    assert!(furthest_apart(&other_masks, &cpu) > 1e-3, "other dropout masks would go unnoticed");
}

/// Long enough a warm-up that a skipped update at its beginning takes little off the curve.
const CURVE: &str = "train.steps=40 optimizer.warmup_steps=20 optimizer.lr=3e-3";
/// Above what the first gradients bear in fp16, and within two halvings of what they do.
const OVERFLOWING: &str = "train.precision=fp16 train.loss_scale=4e6";

#[track_caller]
fn check_narrow(place: &Place, backend: &str, out: &str, sets: &str, fp32: &[f64]) {
    let ended = run(&mut place.train_on(backend, out, &format!("train.steps={} {sets}", fp32.len()))).success();
    let metrics = metrics(&place.path(out));
    let apart = furthest_apart(&metrics.losses(), fp32);
    let skipped = metrics.skipped();
    eprintln!("{backend} {out}: within {:.2}% of fp32, {skipped} skipped", 100.0 * apart);
    assert!(apart < 0.02, "{out} on {backend}: {apart}");
    // Each skipped step is told in one sentence, and nothing of it is hidden in the metrics.
    let told = ended.stderr.lines().filter(|line| line.contains("this step's update was skipped")).count() as u64;
    assert_eq!(told, skipped, "{}", ended.stderr);
    if sets.contains("loss_scale") {
        assert!((1..=5).contains(&skipped), "{skipped} of {} steps skipped", fp32.len());
        assert!(ended.stderr.contains("step 1: gradients overflowed fp16"), "{}", ended.stderr);
        let scale = |step: &Value| step["loss_scale"].as_f64().unwrap();
        let (first, last) = (scale(&metrics.steps[0]), scale(metrics.steps.last().unwrap()));
        assert_eq!((first, first / last), (4e6, (1 << (skipped - 1)) as f64));
    } else {
        assert_eq!(skipped, 0);
    }
}

#[test]
fn narrow_precisions_follow_fp32() {
    let place = Place::new();
    let fp32 = place.losses("fp32", CURVE);
    assert!(fp32[39] < 0.7 * fp32[0], "a flat curve is easy to follow: {fp32:?}");
    check_narrow(&place, "cpu", "bf16", &format!("{CURVE} train.precision=bf16"), &fp32);
    check_narrow(&place, "cpu", "fp16", &format!("{CURVE} {OVERFLOWING}"), &fp32);
    let wide = place.losses("lr", &format!("{CURVE} optimizer.lr=2e-3"));
    assert!(furthest_apart(&wide, &fp32) > 0.02, "another curve would pass");
}

#[test]
fn fp16_on_wgpu_follows_fp32() {
    if !has_wgpu("fp16") {
        return;
    }
    let place = Place::new();
    let curve = "optimizer.warmup_steps=20 optimizer.lr=3e-3 train.micro_batch=8";
    let fp32 = place.losses("fp32", &format!("{curve} train.steps=20"));
    check_narrow(&place, "wgpu", "fp16", &format!("{curve} {OVERFLOWING}"), &fp32);
}

/// A step over one whole epoch without dropout has the loss that `evaluate` finds for the same tokens.
#[test]
fn starts_from_the_weights_that_it_is_given() {
    let place = Place::new();
    run(&mut place.train("base", "")).success();
    let manifest: Value = serde_json::from_slice(&fs::read(place.path("data/manifest.json")).unwrap()).unwrap();
    let sequences = (manifest["train"]["tokens"].as_u64().unwrap() - 1) / 32;
    let mut evaluate = trainer("evaluate --seq-len 32 --json --model");
    evaluate.arg(place.path("base")).arg("--data").arg(place.path("data/train-00000.bin"));
    let evaluated = run(&mut evaluate).success().json();
    assert_eq!(evaluated["tokens"], sequences * 32);
    let expected = evaluated["loss"].as_f64().unwrap();

    let sets = format!("train.steps=2 train.batch={sequences} train.micro_batch={sequences} model.dropout=0");
    for (out, source) in [("run", "base"), ("model", "base/checkpoints/step-00000040/model")] {
        let mut tuned = place.train(out, &sets);
        let ended = run(tuned.arg("--init-from").arg(place.path(source))).success();
        assert!(ended.stderr.contains("the weights of"), "{}", ended.stderr);
        let first = metrics(&place.path(out)).losses()[0];
        assert!((first / expected - 1.0).abs() < 1e-5, "{first} is not the model's loss, {expected}");
    }
    let mut wider = place.train("wider", "model.hidden=64");
    run(wider.arg("--init-from").arg(place.path("base")))
        .error(2, &["base", "has hidden 32", "the configuration has hidden 64", "--set model.hidden=32"]);
    assert!(!place.path("wider").exists());
}

/// Shards as llm.c writes them, with a validation part that has nothing to do with the training part: learning the one
/// unlearns the other, so that the best checkpoint is an early one.
#[test]
fn validation_best_and_retention() {
    let place = Place::new();
    fs::create_dir(place.path("shards")).unwrap();
    let tokens = |length: usize, next: fn(usize) -> usize| (0..length).map(|i| next(i) as u16).collect::<Vec<_>>();
    write_shard(&place.path("shards/some_train_000001.bin"), &tokens(3000, |i| i % 7));
    write_shard(&place.path("shards/some_val_000000.bin"), &tokens(400, |i| i * i % 251));
    let mut train = trainer("train --json --config");
    train.arg(place.path("config.toml")).arg("--data").arg(place.path("shards")).arg("--out").arg(place.path("run"));
    set(&mut train, "validation.every=4 checkpoint.every=5 checkpoint.keep_last=2 checkpoint.keep_every=20");
    let summary = run(&mut train).success().json();

    let metrics = metrics(&place.path("run"));
    let val = |record: &Value| (record["step"].as_u64().unwrap(), record["val_loss"].as_f64().unwrap());
    let validations: Vec<_> = metrics.validations.iter().map(val).collect();
    assert_eq!(validations.iter().map(|v| v.0).collect::<Vec<_>>(), (1..=10).map(|i| i * 4).collect::<Vec<_>>());
    let (best, best_loss) = *validations.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let (_, last_loss) = *validations.last().unwrap();
    assert!(best < 20 && best_loss < last_loss, "{validations:?}");
    assert_eq!(val(&summary["best"]), (best, best_loss));
    assert_eq!(summary["val_loss"].as_f64(), Some(last_loss));
    assert_eq!((summary["step"].as_u64(), summary["finished"].as_bool()), (Some(40), Some(true)));

    // The best, a multiple of keep_every, and the two newest.
    assert_eq!(whole_checkpoints(&place.path("run")), [best, 20, 35, 40]);
    for (model, expected) in [("run/checkpoints/best", best_loss), ("run/checkpoints/latest", last_loss)] {
        let mut evaluate = trainer("evaluate --json --model");
        evaluate.arg(place.path(model)).arg("--data").arg(place.path("shards"));
        let found = run(&mut evaluate).success().json()["loss"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-5, "{model}: {found}, expected {expected}");
    }
}

#[test]
fn metrics_and_configuration_are_those_of_the_run() {
    let place = Place::new();
    let out = place.path("run");
    run(&mut place.train("run", "train.steps=10 optimizer.lr=0.004")).success();
    let metrics = metrics(&out);
    for (i, step) in metrics.steps.iter().enumerate() {
        for key in
            ["step", "loss", "lr", "grad_norm", "loss_scale", "skipped", "tokens", "tokens_per_s", "mfu", "seconds"]
        {
            assert!(step.get(key).is_some(), "no {key} in {step}");
        }
        assert_eq!(step["tokens"], (i as u64 + 1) * 8 * 32);
        // Five steps up, five down to zero.
        let expected = 0.004 * [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0][i];
        assert!((step["lr"].as_f64().unwrap() - expected).abs() < 1e-12, "{step}");
    }
    // The resolved configuration makes the same run again.
    let mut again = trainer("train --config");
    run(again.arg(out.join("config.toml")).arg("--out").arg(place.path("again"))).success();
    assert_eq!(self::metrics(&place.path("again")).losses(), metrics.losses());
    assert_eq!(fs::read(out.join("config.toml")).unwrap(), fs::read(place.path("again/config.toml")).unwrap());
}

/// Of two problems one can be solved, by whoever has learned what a function's lines look like: the best checkpoint is the first
/// of those that solve most, with the lowest loss among them.
#[test]
fn the_best_by_problems_solved() {
    let place = Place::new();
    let problem = |name: &str, test: &str| {
        serde_json::json!({
            "task_id": name, "prompt": "def f(x, y):\n    return x", "entry_point": "f",
            "test": format!("def check(candidate):\n    {test}\n"),
        })
    };
    let problems = [problem("p/0", "assert candidate(1, 1) is not None"), problem("p/1", "assert False")];
    fs::write(place.path("problems.jsonl"), problems.map(|problem| format!("{problem}\n")).concat()).unwrap();
    let sets = "train.steps=120 validation.every=20";
    let mut train = place.train("run", sets);
    run(train.args(["--select", "humaneval", "--problems"]).arg(place.path("problems.jsonl"))).success();

    let validations = metrics(&place.path("run")).validations;
    let shares: Vec<f64> = validations.iter().map(|record| record["pass_at_1"].as_f64().unwrap()).collect();
    assert!(shares.len() == 6 && shares.iter().all(|share| [0.0, 0.5].contains(share)), "{shares:?}");
    assert_eq!(shares.last(), Some(&0.5), "a trained model writes the line");
    let key = |record: &Value| (record["pass_at_1"].as_f64().unwrap(), -record["val_loss"].as_f64().unwrap());
    let best = validations.iter().max_by(|a, b| key(a).partial_cmp(&key(b)).unwrap()).unwrap();
    let state: Value =
        serde_json::from_slice(&fs::read(whole_latest(&place.path("run")).join("state.json")).unwrap()).unwrap();
    assert_eq!((&state["best"]["step"], &state["best"]["pass_at_1"]), (&best["step"], &best["pass_at_1"]));
    let pointer = fs::read_to_string(place.path("run/checkpoints/best")).unwrap();
    assert_eq!(pointer.trim(), format!("step-{:08}", best["step"].as_u64().unwrap()));

    run(place.train("new", sets).args(["--select", "humaneval"])).error(2, &["--problems"]);
    let mut nothing = place.train("new", sets);
    run(nothing.args(["--select", "humaneval", "--problems"]).arg(place.path("none.jsonl"))).error(2, &["none.jsonl"]);
}
