use clap::CommandFactory;

use super::value::byte_size;
use super::*;
use crate::config::preset_names;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn definitions_are_consistent() {
    Cli::command().debug_assert();
}

/// Sizes are multiplied with each other before a configuration bounds them.
#[test]
fn numbers_have_bounds() {
    for line in [
        "bench --micro-batch",
        "bench --steps",
        "generate --model m --max-tokens",
        "logits --model m --tokens t --out o --seq-len",
    ] {
        assert!(parse(&format!("trainer {line} 16777216")).is_ok(), "{line}");
        for number in ["0", "16777217", "18446744073709551615", "99999999999999999999", "-1", "x"] {
            let error = parse(&format!("trainer {line}={number}")).unwrap_err().to_string();
            assert!(error.contains("expected a whole number from 1 to 16777216"), "{line} {number}: {error}");
        }
    }
}

#[test]
fn every_option_is_explained() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
}

#[test]
fn the_presets_in_the_help_are_those_that_exist() {
    let mut command = Cli::command();
    let help = command.find_subcommand_mut("train").unwrap().render_help().to_string();
    for name in preset_names() {
        assert!(help.contains(name), "{name}");
    }
}

#[test]
fn the_gpus_in_the_help_are_those_that_exist() {
    let mut command = Cli::command();
    let help = command.find_subcommand_mut("estimate").unwrap().render_help().to_string();
    for gpu in crate::parallel::scaling::GPUS {
        assert!(help.contains(gpu.name), "{}", gpu.name);
    }
}

/// They still parse there: `trainer --backend cpu COMMAND` is for any command.
#[test]
fn device_options_are_shown_where_they_are_of_use() {
    let mut command = Cli::command();
    command.build();
    for (name, shown) in [
        ("train", &["--backend", "--device ", "--tune", "--devices"][..]),
        ("bench", &["--backend", "--device ", "--tune"]),
        ("estimate", &["--devices"]),
        ("prepare", &[]),
        ("exercises", &[]),
        ("export", &[]),
        ("devices", &[]),
        ("report", &[]),
        ("runs", &[]),
        ("verify", &[]),
        ("completions", &[]),
        ("man", &[]),
    ] {
        let help = command.find_subcommand_mut(name).unwrap().render_help().to_string();
        for option in ["--backend", "--device ", "--tune", "--devices"] {
            assert_eq!(help.contains(option), shown.contains(&option), "{name} {option}: {help}");
        }
    }
    for line in
        ["trainer --backend cpu --device 1 prepare a --out d", "trainer prepare a --out d --backend cpu --device 1"]
    {
        let global = parse(line).unwrap().global;
        assert_eq!((global.backend, global.device), (BackendName::Cpu, Some(1)), "{line}");
    }
    assert_eq!(parse("trainer --devices 8 estimate --preset phi-1").unwrap().global.devices, Some(8));
}

/// As a value, of which the option itself says what it should be.
#[test]
fn negative_numbers_are_values() {
    for (line, expected) in [
        ("generate --model m --temperature -1", "expected a number of at least 0"),
        ("generate --model m --temperature -0.5", "expected a number of at least 0"),
        ("generate --model m --seed -1", "expected a whole number from 0 to"),
        ("bench --warmup -1", "expected a whole number from 0 to"),
        ("bench --device -1", "expected a whole number from 0 to"),
        ("--device -1 bench", "expected a whole number from 0 to"),
        ("--devices -1 estimate", "expected a whole number from 1 to"),
        ("demo --steps 0", "expected a whole number from 1 to 99999999"),
        ("demo --steps -1", "expected a whole number from 1 to 99999999"),
    ] {
        let error = parse(&format!("trainer {line}")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
}

#[test]
fn evaluate_says_that_it_takes_data_or_text() {
    let error = parse("trainer evaluate --model m").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--data") && error.to_string().contains("--text"), "{error}");
    assert!(parse("trainer evaluate --model m --data d --text t").is_err());
}

#[test]
fn no_command_is_the_demo_with_defaults() {
    let cli = parse("trainer --backend wgpu").unwrap();
    assert!(cli.command.is_none());
    assert_eq!(cli.global.backend, BackendName::Wgpu);
    let Some(Command::Demo(args)) = parse("trainer demo").unwrap().command else { panic!("not the demo") };
    assert_eq!(args, DemoArgs::default());
}

#[test]
fn commands_of_the_design_parse() {
    for line in [
        "trainer prepare a b.jsonl --out d --tokenizer bytes --val-fraction 0.05 --shard-tokens 1000 --force --json",
        "trainer train --preset laptop --data d --out r --set train.steps=20 --set data.seed=3 --backend cpu",
        "trainer train --config c.toml --out r --init-from m",
        "trainer train --out r --resume",
        "trainer evaluate --model m --data d --batch 4 --seq-len 128 --max-batches 3 --json",
        "trainer logits --model m --tokens t.bin --seq-len 64 --out l.safetensors",
        "trainer generate --model m --prompt x --temperature 0.8 --top-p 0.95 --top-k 40 --seed 1 --samples 2 --json",
        "trainer evaluate --model m --text - --stride 64",
        "trainer humaneval --problems p.jsonl --model m --samples 20 --temperature 0.8 --top-p 0.95 --out s.jsonl --precision fp16",
        "trainer humaneval --problems p.jsonl.gz --score s.jsonl --out r.jsonl --jobs 2 --timeout 3 --json",
        "trainer export r --out d --dtype fp16",
        "trainer export r --out d --shard-size 500MB --json",
        "trainer estimate --preset phi-1 --precision bf16 --micro-batch 4 --accumulate 2 --devices 8 --json",
        "trainer devices --json --device 1",
        "trainer bench --hidden 128 --layers 4 --heads 2 --vocab 2048 --seq 256 --micro-batch 4 --accumulate 1 \
         --precision fp32 --dropout 0.1 --steps 3 --warmup 1 --json",
        "trainer bench --preset phi-1 --precision fp16 --by-part --trace t.json",
        "trainer train --preset laptop --out r --profile 5",
        "trainer selftest --seed 7 --json",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let Some(Command::Train(args)) = parse("trainer train --out r --set a=1 --set b=2").unwrap().command else {
        panic!("not train")
    };
    assert_eq!(args.config.sets, ["a=1", "b=2"]);
    assert_eq!(parse("trainer devices --device 1").unwrap().global.device, Some(1));
}

#[test]
fn wrong_usage_is_refused() {
    for line in [
        "trainer prepare --out d",
        "trainer prepare a --out d --val-fraction 1",
        "trainer prepare a --out d --shard-tokens 0",
        "trainer train --preset laptop",
        "trainer train --out r --resume=sometimes",
        "trainer train --out r --max-hours 0",
        "trainer generate --model m --prompt x --prompt-file f",
        "trainer generate --model m --top-p 0",
        "trainer generate --model m --temperature nan",
        "trainer logits --model m --tokens t --seq-len 0 --out o",
        "trainer bench --preset phi-1 --hidden 3",
        "trainer bench --precision fp8",
        "trainer --backend tpu",
        "trainer humaneval",
        "trainer humaneval --problems p.jsonl --score s.jsonl --timeout 0",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn sizes_in_bytes_are_transformers_sizes() {
    for (text, bytes) in [
        ("5GB", 5_000_000_000),
        ("500MB", 500_000_000),
        ("2GiB", 2 << 30),
        ("1.5kb", 1500),
        ("10", 10),
        (" 7 MB ", 7_000_000),
    ] {
        assert_eq!(byte_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "0", "0GB", "-1GB", "5 parsecs", "GB", "NaN"] {
        assert!(byte_size(text).is_err(), "{text}");
    }
}
