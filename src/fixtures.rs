//! For tests: small whole things on disk, as the program writes them.

use std::path::Path;

use crate::checkpoint::hugging_face::{ConfigExtras, write_config, write_weights};
use crate::checkpoint::optimizer_files::file_name;
use crate::checkpoint::{CheckpointWriter, Dtype, TensorEntry, mark_best, storage};
use crate::config::Config;
use crate::data::prepare::{self, PrepareOptions};
use crate::data::tokenizer::Tokenizer;
use crate::model::{Architecture, HostBuffers, ParameterTable};
use crate::report::metrics::{MetricsLog, Record, StepRecord, ValidationRecord};
use crate::report::samples::{self, SampleRecord};
use crate::report::sessions::{Ended, Outcome, SessionLog};
use crate::train::run::CONFIG;
use crate::train::save::{LoopState, STATE};

/// A decoder of 4,465 parameters that has an id for every byte and the end of a text.
pub fn architecture() -> Architecture {
    Architecture::phi(1, 8, 2, 257, 16)
}

fn entries<'a>(prefix: &str, table: &'a ParameterTable, host: &'a HostBuffers) -> Vec<TensorEntry<'a>> {
    let entry = |entry: &'a crate::model::table::Entry| {
        TensorEntry::f32(format!("{prefix}{}", entry.name), entry.shape.clone(), host.slice(entry))
    };
    table.entries.iter().map(entry).collect()
}

/// A model directory, its weights in files of at most `shard_bytes`.
pub fn model(dir: &Path, shard_bytes: u64) {
    let arch = architecture();
    let table = ParameterTable::new(&arch);
    let host = HostBuffers::init(&arch, &table, 1);
    storage::create_dir(dir).unwrap();
    write_config(dir, &arch, &ConfigExtras::new(Dtype::F32)).unwrap();
    write_weights(dir, entries("", &table, &host), shard_bytes).unwrap();
    Tokenizer::bytes().save(dir).unwrap();
}

/// The file of optimizer state that one rank writes for `model`.
pub fn optimizer(path: &Path) {
    let table = ParameterTable::new(&architecture());
    let host = HostBuffers::zeros(&table);
    let all = [entries("m.", &table, &host), entries("v.", &table, &host)];
    crate::checkpoint::tensor_file::write_tensor_file(path, all.into_iter().flatten().collect(), &[]).unwrap();
}

/// state.json of a run that has made `step` steps.
pub fn state(step: u64) -> Vec<u8> {
    let state = serde_json::json!({
        "version": "0.1.0", "step": step, "updates": step, "loss_scale": null, "tokens": step * 1024, "seconds": 1.5,
        "best": {"step": step, "val_loss": 2.5}, "data": "0123456789abcdef",
    });
    let state: LoopState = serde_json::from_value(state).unwrap();
    serde_json::to_vec_pretty(&state).unwrap()
}

/// A run of 4 steps with a checkpoint after 2 and after 4, of which the first is the best.
pub fn run(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let config = Config::resolve(Some("demo"), None, &[]).unwrap();
    std::fs::write(dir.join(CONFIG), config.to_toml().unwrap()).unwrap();
    let mut metrics = MetricsLog::open(dir).unwrap();
    let mut session = SessionLog::new(dir, 0, "cpu", 1);
    for step in 1..=4 {
        let (loss, seconds) = (3.0 / step as f64, step as f64);
        let record = StepRecord {
            step,
            loss,
            lr: 1e-3,
            grad_norm: 0.5,
            loss_scale: 1.0,
            skipped: false,
            tokens: step * 1024,
            tokens_per_s: 1e4,
            mfu: None,
            seconds,
            memory: None,
            communication: None,
            exposed: None,
        };
        assert!(metrics.write(&Record::Step(record)).is_none());
        session.step();
        if step % 2 == 0 {
            let validation = ValidationRecord { step, val_loss: loss, pass_at_1: None };
            assert!(metrics.write(&Record::Validation(validation)).is_none());
            let sample =
                |prompt: &str| SampleRecord { step, prompt: prompt.into(), text: "(x):\n    return x\n".into() };
            samples::append(dir, &[sample("def f"), sample("def \u{e9}")]);
            let writer = CheckpointWriter::begin(dir, step).unwrap();
            model(&writer.model_dir().unwrap(), u64::MAX);
            optimizer(&writer.path().join(file_name(0, 1)));
            writer.write_file(STATE, &state(step)).unwrap();
            writer.commit().unwrap();
        }
    }
    mark_best(dir, 2).unwrap();
    session.end(&Ended { ended: 1e9, step: 4, outcome: Outcome::Finished, message: None, peak_memory: None });
}

/// A data directory: three training shards of at most 600 tokens, validation shards, tokenizer and manifest.
pub fn data(dir: &Path) {
    let corpus = tempfile::tempdir().unwrap();
    for i in 0..40 {
        std::fs::write(corpus.path().join(format!("{i}.py")), format!("def f{i}(x):\n    return x * {i}\n")).unwrap();
    }
    let options = PrepareOptions {
        tokenizer: "bytes".to_string(),
        val_fraction: 0.2,
        shard_tokens: 400,
        threads: 1,
        ..PrepareOptions::new(vec![corpus.path().to_path_buf()], dir.to_path_buf())
    };
    prepare::run(&options, |_| {}).unwrap();
}
