//! Configurations: files and `--set`.

use super::{Target, cases, edits::content};
use crate::config::{Config, preset_names};
use crate::model::memory::{Memory, Plan};

fn texts() -> Vec<Vec<u8>> {
    let resolved = |name| Config::resolve(Some(name), None, &[]).unwrap().to_toml().unwrap();
    let mut texts: Vec<Vec<u8>> = preset_names().map(|name| resolved(name).into_bytes()).collect();
    texts
        .push(b"inherits = \"laptop\"\n[train]\nsteps = 7\nprecision = \"bf16\"\n[data]\npath = '''a\nb'''\n".to_vec());
    texts
}

/// What a configuration that was taken must be good for.
fn use_config(config: &Config) {
    let arch = config.architecture();
    arch.validate().unwrap();
    assert!(arch.parameters() > 0 && arch.flops_per_token(config.model.seq_len).is_finite());
    assert!(config.tokens_per_step() > 0 && config.accumulation() > 0);
    assert!(Memory::estimate(&arch, &Plan::new(config)).total() > 0);
    config.to_toml().unwrap();
}

#[test]
fn configuration_files() {
    // An error of the whole (a key that is missing, two that contradict each other) names the keys and where each came from.
    let mut target = Target::new(file!(), "config.toml", texts());
    target.also_named = &["model.", "train.", "optimizer."];
    target.run(|_| {}, |path| Config::resolve(None, Some(path), &[]).map(|config| use_config(&config)));
}

#[test]
fn settings_of_the_command_line() {
    let sets =
        ["train.steps=20", "optimizer.lr=3e-4", "data.path=\"a b\"", "train.precision=fp16", "model.dropout = 0.1"];
    let sets: Vec<Vec<u8>> = sets.map(|set| set.as_bytes().to_vec()).to_vec();
    cases(file!(), "--set", content(), |content| {
        let set = String::from_utf8_lossy(&content.bytes(&sets, |_| {})).into_owned();
        match Config::resolve(Some("demo"), None, &[set]) {
            Ok(config) => use_config(&config),
            Err(error) => super::one_clear_sentence(&error, &["--set", "model.", "train."])?,
        }
        Ok(())
    });
}
