use proptest::prelude::*;

use super::keys::{KEYS, Kind};
use super::*;

fn preset(name: &str) -> Config {
    Config::resolve(Some(name), None, &[]).unwrap()
}

fn with(preset: &str, sets: &[&str]) -> Result<Config> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    Config::resolve(Some(preset), None, &sets)
}

fn refusal(sets: &[&str]) -> String {
    let error = with("phi-1", sets).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn from_text(text: &str) -> Result<Config> {
    Config::resolve(None, Some(file(text).path()), &[])
}

const SMALLEST: &str =
    "[model]\nlayers=2\nhidden=128\nheads=2\nvocab=512\nseq_len=64\n[optimizer]\nlr=1e-3\n[train]\nsteps=5\nbatch=4\n";

#[test]
fn presets_are_the_papers() {
    let phi = preset("phi-1");
    assert_eq!(phi.architecture(), Architecture::phi(24, 2048, 32, 51_200, 2048));
    assert_eq!((phi.train.steps, phi.train.batch, phi.train.micro_batch), (36_000, 1024, 16));
    assert_eq!((phi.accumulation(), phi.tokens_per_step()), (64, 2_097_152));
    assert_eq!(phi.train.precision, Precision::Fp16);
    assert_eq!((phi.model.attention_dropout, phi.model.residual_dropout, phi.model.embedding_dropout), (0.1, 0.1, 0.0));
    let Optimizer { lr, warmup_steps, weight_decay, beta1, beta2, eps, clip } = phi.optimizer;
    assert_eq!((lr, warmup_steps, weight_decay, beta1, beta2, eps, clip), (1e-3, 750, 0.1, 0.9, 0.98, 1e-7, 1.0));
    assert_eq!(phi.train.loss_scale, 65_536.0);
    assert_eq!(24_000 % phi.checkpoint.keep_every, 0, "the base model's step must be kept");

    let small = preset("phi-1-small");
    assert_eq!(small.architecture(), Architecture::phi(20, 1024, 16, 51_200, 2048));
    assert_eq!((&small.optimizer, small.train.batch), (&phi.optimizer, 1024));

    let finetune = preset("phi-1-finetune");
    assert_eq!(finetune.model, phi.model);
    assert_eq!((finetune.train.steps, finetune.train.batch, finetune.checkpoint.every), (6000, 256, 1000));
    assert_eq!(
        (finetune.optimizer.lr, finetune.optimizer.warmup_steps, finetune.optimizer.weight_decay),
        (1e-4, 50, 0.01)
    );
}

#[test]
fn every_preset_resolves_and_reads_back() {
    for name in preset_names() {
        let config = preset(name);
        assert_eq!(from_text(&config.to_toml().unwrap()).unwrap(), config, "{name}");
    }
}

#[test]
fn later_layers_win() {
    let file = file("[train]\nsteps = 30\nbatch = 32\n");
    let sets = ["train.steps=20".to_owned(), "optimizer.lr = 1".to_owned(), "train.precision=bf16".to_owned()];
    let config = Config::resolve(Some("phi-1"), Some(file.path()), &sets).unwrap();
    assert_eq!((config.train.steps, config.train.batch, config.train.micro_batch), (20, 32, 16));
    assert_eq!((config.optimizer.lr, config.train.precision), (1.0, Precision::Bf16));
}

#[test]
fn a_file_stands_alone_with_defaults_or_builds_on_a_preset() {
    let alone = from_text(SMALLEST).unwrap();
    assert_eq!((alone.model.mlp, alone.model.rotary_dim, alone.train.micro_batch), (512, 32, 4));
    assert_eq!(alone.data.path, Path::new("data"));

    let built = from_text("inherits = \"laptop\"\n[train]\nsteps = 7\n").unwrap();
    assert_eq!(built, with("laptop", &["train.steps=7"]).unwrap());
    let replaced = file("inherits = \"laptop\"\n[train]\nsteps = 7\n");
    let demo = Config::resolve(Some("demo"), Some(replaced.path()), &[]).unwrap();
    assert_eq!(demo.model.vocab, 1024);
    let error = from_text("inherits = \"labtop\"").unwrap_err().to_string();
    assert!(error.contains("did you mean laptop?") && error.starts_with("inherits (/"), "{error}");
    let error = from_text("inherits = 3").unwrap_err().to_string();
    assert!(error.contains("must be a preset's name"), "{error}");
}

#[test]
fn dropout_that_rounds_to_none_or_all_is_refused() {
    for (rate, refused) in [("0.001", true), ("0.999", true), ("0.002", false), ("0.99", false), ("0", false)] {
        let found = with("demo", &[&format!("model.dropout={rate}")]);
        assert_eq!(found.is_err(), refused, "{rate}");
        assert!(found.err().is_none_or(|error| error.to_string().contains("steps of 1/256")));
    }
}

#[test]
fn dropout_covers_both_kinds_unless_one_is_named_later() {
    let one = with("phi-1", &["model.dropout=0.2", "model.attention_dropout=0"]).unwrap();
    assert_eq!((one.model.attention_dropout, one.model.residual_dropout), (0.0, 0.2));
    // The written form names both; a general override of it must still reach both.
    let written = file(&one.to_toml().unwrap());
    let none = Config::resolve(None, Some(written.path()), &["model.dropout=0.0".to_owned()]).unwrap();
    assert_eq!((none.model.attention_dropout, none.model.residual_dropout), (0.0, 0.0));
    let layered = file("[model]\ndropout = 0.3\nresidual_dropout = 0.4\n");
    let both = Config::resolve(Some("phi-1"), Some(layered.path()), &[]).unwrap();
    assert_eq!((both.model.attention_dropout, both.model.residual_dropout), (0.3, 0.4));
}

#[test]
fn text_needs_no_quotes_on_the_command_line() {
    for (set, path) in [
        ("data.path=/tmp/a b", "/tmp/a b"),
        ("data.path=\"/tmp/a\"", "/tmp/a"),
        ("data.path=2024", "2024"),
        ("data.path=true", "true"),
        ("data.path=C:\\data", "C:\\data"),
        ("data.path=a=b", "a=b"),
    ] {
        assert_eq!(with("demo", &[set]).unwrap().data.path, Path::new(path), "{set}");
    }
    assert_eq!(with("demo", &["train.recompute=block"]).unwrap().train.recompute, Recompute::Block);
}

#[test]
fn mistyped_names_are_corrected() {
    for (set, hint) in [
        ("model.layres=3", "did you mean layers?"),
        ("modle.layers=3", "did you mean model?"),
        ("optimizer.steps=3", "did you mean train.steps?"),
        ("lr=3", "did you mean optimizer.lr?"),
        ("train.precision=bf61", "did you mean bf16?"),
    ] {
        let error = refusal(&[set]);
        assert!(error.contains(hint) && error.contains("--set"), "{error}");
    }
    let error = Config::resolve(Some("phi1"), None, &[]).unwrap_err().to_string();
    assert!(error.contains("did you mean phi-1?") && error.contains("laptop"), "{error}");
    let error = Config::resolve(None, None, &[]).unwrap_err().to_string();
    assert!(error.contains("--preset") && error.contains("--config"), "{error}");
}

#[test]
fn files_with_wrong_structure_are_refused() {
    for (text, part) in [
        ("[trian]\nsteps = 3\n", "did you mean train?"),
        ("steps = 3\n", "outside of any table"),
        ("train = 3\n", "it must be a table"),
        ("[train]\nsteps = 3\nsteps = 4\n", "line 3: not valid TOML"),
        ("[train\n", "line 1: not valid TOML"),
        ("[train]\nbatch_size = 3\n", "unknown key train.batch_size"),
        ("", "model.hidden is missing"),
    ] {
        let error = from_text(text).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(part), "{error}");
    }
    let unreadable = |path: &Path| {
        let error = Config::resolve(None, Some(path), &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let missing = unreadable(Path::new("/no/such/file.toml"));
    assert!(missing.contains("/no/such/file.toml: there is no such file") && missing.contains("--preset"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    assert!(unreadable(folder.path()).contains("is a folder"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(unreadable(&binary).contains("is not UTF-8"));
}

#[test]
fn values_out_of_range_or_of_the_wrong_type_are_refused_with_their_origin() {
    for set in [
        "model.dropout=1",
        "model.dropout=-0.1",
        "model.dropout=nan",
        "optimizer.lr=0",
        "optimizer.lr=inf",
        "optimizer.lr=nan",
        "optimizer.lr=-1e-3",
        "optimizer.lr=fast",
        "optimizer.beta2=1.0",
        "optimizer.eps=0",
        "optimizer.clip=-1",
        "train.steps=0",
        "train.steps=1.5",
        "train.steps=-3",
        "train.steps=99999999999",
        "train.recompute=1",
        "train.seed=-1",
        "train.loss_scale=0.5",
        "train.precision=32",
        "model.layers=99999999999999999999",
        "checkpoint.keep_last=0",
        "data.path=",
        "train.steps=",
        "train.steps=1\nbatch=2",
    ] {
        let (key, _) = set.split_once('=').unwrap();
        let error = refusal(&[set]);
        assert!(error.starts_with(&format!("{key} is ")) && error.contains("(--set): it must be "), "{error}");
    }
    let error = from_text(&SMALLEST.replace("lr=1e-3", "lr=\"1e-3\"")).unwrap_err().to_string();
    assert!(error.contains("optimizer.lr is \"1e-3\" (/") && error.contains("a number above 0"), "{error}");
    assert!(refusal(&["train.steps"]).contains("expected table.key=value"));
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let error = refusal(&["train.batch=100"]);
    assert!(error.contains("train.batch 96 or 112, or train.micro_batch 10"), "{error}");
    assert!(
        error.contains("train.batch = 100 (--set)") && error.contains("micro_batch = 16 (preset phi-1)"),
        "{error}"
    );
    let error = refusal(&["train.batch=8"]);
    assert!(error.contains("train.batch 16, or train.micro_batch 8"), "{error}");
    let error = refusal(&["model.heads=3"]);
    assert!(error.contains("multiple") && error.contains("model.heads = 3 (--set)"), "{error}");
    assert!(refusal(&["model.rotary_dim=66"]).contains("rotary"));
}

#[test]
fn the_list_of_keys_and_the_parsed_type_agree() {
    let written: toml::Table =
        with("demo", &["model.attention_dropout=0.5"]).unwrap().to_toml().unwrap().parse().unwrap();
    let known = |table: &str, name: &str| KEYS.iter().any(|key| key.table == table && key.name == name);
    for (table, keys) in &written {
        assert!(keys.as_table().unwrap().keys().all(|name| known(table, name)));
    }
    for key in KEYS {
        let value = match key.kind {
            Kind::Whole { min, .. } => toml::Value::Integer(min as i64),
            Kind::Real { max, .. } => toml::Value::Float(max),
            Kind::Fraction => toml::Value::Integer(0),
            Kind::Text => toml::Value::String("x".into()),
            Kind::Choice(words) => toml::Value::String(words[0].into()),
        };
        assert!(key.kind.accepts(&value), "{key:?}");
        let text = format!("[{}]\n{} = {value}\n", key.table, key.name);
        toml::from_str::<Parsed>(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

prop_compose! {
    fn any_model()(
        layers in 1usize..50, heads in 1usize..9, head in 1usize..65, mlp in 1usize..5000, vocab in 1usize..60_000,
        seq_len in 1usize..5000, pairs in 0usize..32, rope_theta in 1e-3..1e7f64, norm_eps in 1e-12..1e-2f64,
        dropouts in prop::array::uniform3(prop_oneof![Just(0.0), Just(0.1), 0.004..0.994f64]),
    ) -> Model {
        Model {
            layers, hidden: heads * head, heads, mlp, vocab, seq_len, rotary_dim: 2 * pairs.min(head / 2), rope_theta,
            norm_eps, embedding_dropout: dropouts[0], attention_dropout: dropouts[1], residual_dropout: dropouts[2],
        }
    }
}

prop_compose! {
    fn any_optimizer()(
        lr in 1e-9..10.0f64, warmup_steps in 0u64..100_000, weight_decay in 0.0..1.0f64, beta1 in 0.0..1.0f64,
        beta2 in 0.0..1.0f64, eps in 1e-30..1e-3f64, clip in prop_oneof![Just(0.0), 0.0..1e6f64],
    ) -> Optimizer {
        Optimizer { lr, warmup_steps, weight_decay, beta1, beta2, eps, clip }
    }
}

prop_compose! {
    fn any_config()(
        model in any_model(), optimizer in any_optimizer(), path in "[^\\x00]{1,20}", seeds in prop::array::uniform2(0..=i64::MAX as u64),
        steps in 1u64..99_999_999, micro_batch in 1usize..64, accumulate in 1usize..64,
        [precision, recompute, zero] in prop::array::uniform3(0usize..3), loss_scale in 1.0..1e38f64, every in prop::array::uniform3(0u64..10_000),
        batches in 0usize..1000, keep_last in 1usize..100, times in prop::array::uniform2(0.0..1e6f64),
        policy in 0usize..3, threshold in 1e-3..1e6f64, window in 2usize..60_000, limit in 0usize..60_000,
    ) -> Config {
        let precision = [Precision::Fp32, Precision::Fp16, Precision::Bf16][precision];
        let policy = [SpikePolicy::Continue, SpikePolicy::Skip, SpikePolicy::Rollback][policy];
        let recompute = [Recompute::None, Recompute::Activation, Recompute::Block][recompute];
        Config {
            model,
            data: Data { path: path.into(), seed: seeds[0] },
            optimizer,
            train: Train {
                steps, batch: micro_batch * accumulate, micro_batch, precision, seed: seeds[1], recompute, zero: zero as u8,
                loss_scale,
            },
            validation: Validation {
                every: every[0] + 1, batches, samples: limit % 65, select: if limit % 2 == 0 { Select::Loss } else { Select::Humaneval },
                problems: (limit % 2 == 1 || limit % 3 == 0).then(|| "problems.jsonl".into()),
            },
            checkpoint: Checkpoint {
                every: every[1], keep_last, keep_every: every[2], every_minutes: times[0], keep_hours: times[1],
            },
            spikes: Spikes { policy, threshold, window, limit },
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back_identically(config in any_config()) {
        prop_assert_eq!(from_text(&config.to_toml().unwrap()).unwrap(), config);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}", set in "(model|train|data|x)?\\.?(steps|lr|path|batch)?=?\\PC{0,12}") {
        let _ = from_text(&text);
        let _ = with("demo", &[&set]);
    }
}
