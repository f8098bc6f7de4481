//! The demo, cut short: what it needs is in the program, and it runs to its end.

use crate::support::{Place, metrics, run, trainer, whole_checkpoints};

#[test]
fn three_steps_of_the_demo() {
    let place = Place::new();
    let demo = place.path("demo");
    let ended = run(trainer("demo --steps 3 --out").arg(&demo)).success();
    let (stdout, stderr) = (&ended.stdout, &ended.stderr);
    // Three steps solve nothing; whether the full demo does is for the demo to show.
    let judged = stdout.contains("of 96 unseen exercises solved (");
    assert!(judged || stdout.contains("no Python was found"), "{stdout}");
    assert!(stdout.contains("trained 3 steps in ") && stdout.contains(", validation loss "), "{stdout}");
    assert!(
        stdout.contains("# (") && stdout.contains("def ") && stdout.contains("trainer generate --model"),
        "{stdout}"
    );
    assert!(stderr.contains("writing 75000 exercises"), "{stderr}");
    let metrics = metrics(&demo);
    let losses = metrics.losses();
    // A vocabulary of 1024: ln 1024 = 6.93 at first.
    assert!(losses.len() == 3 && (losses[0] - 6.93).abs() < 0.1 && losses[2] < losses[0], "{losses:?}");
    assert_eq!(metrics.validations.len(), 1);
    assert_eq!(whole_checkpoints(&demo), [3]);

    // What a demo that was stopped is told to do; more steps stand in for the ones that were not made.
    let resumed = run(trainer("train --resume --set train.steps=5 --out").arg(&demo)).success();
    assert!(resumed.stdout.contains("trained 5 steps in "), "{}", resumed.stdout);
    assert_eq!(crate::support::metrics(&demo).losses().len(), 5);
    assert_eq!(whole_checkpoints(&demo).last(), Some(&5));

    // One that cannot run leaves the earlier one alone, and what takes its place says so.
    let before = place.snapshot("demo");
    run(trainer("demo --set model.vocab=5 --out").arg(&demo)).error(2, &["vocabulary"]);
    assert!(place.snapshot("demo") == before);
    let again = run(trainer("demo --steps 1 --out").arg(&demo)).success();
    assert!(again.stderr.contains("replacing the earlier run in"), "{}", again.stderr);
    assert_eq!(whole_checkpoints(&demo), [1]);
}

#[test]
fn a_demo_replaces_nothing_but_a_demo() {
    let place = Place::new();
    run(&mut place.train("run", "train.steps=1")).success();
    for other in ["run", "text"] {
        let before = place.snapshot(other);
        run(trainer("demo --steps 1 --out").arg(place.path(other))).error(2, &["something else than a demo", "--out"]);
        assert!(place.snapshot(other) == before, "{other}");
    }
}
