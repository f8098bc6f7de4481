//! Generation: with a cache of keys and values as without one, in any batch, past the context, up to a stop string.

use burn_tensor::DType;
use trainer::checkpoint::model_files::load_model;
use trainer::config::Recompute;
use trainer::eval::generate::{Completion, Ending, Generation, Next, Sampling, complete};
use trainer::model::cache::Cache;
use trainer::model::{Buffers, Decoder};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::mix64;

use crate::on_cpu_and_wgpu;
use crate::support::{Place, data, run, trainer};

/// The golden model, with a shorter context.
fn model<B: DecoderBackend>(device: &B::Device, context: usize, dtype: DType) -> (Decoder<B>, Buffers<B>) {
    let (model, weights) = load_model(&data("phi-tiny/model")).unwrap();
    let mut arch = model.architecture;
    arch.context = context;
    (Decoder::new(arch, context, device, Recompute::None), weights.upload::<B>(device, dtype))
}

fn tokens(count: usize, seed: u64) -> Vec<u32> {
    (0..count as u64).map(|i| (mix64(mix64(seed) ^ i) % 512) as u32).collect()
}

/// Logits after a prefill and after each further token are those of the whole sequence.
fn check_logits<B: DecoderBackend>(device: &B::Device) {
    // fp16 keeps 11 bits of activations that are the same numbers up to the order of fp32 sums, so a rounding may fall to
    // the other neighbour here and there; as in the golden test.
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 2e-3)] {
        if !B::supports_dtype(device, dtype) {
            continue;
        }
        let (decoder, weights) = model::<B>(device, 64, dtype);
        let sequences: Vec<Vec<i32>> =
            (0..3).map(|seed| tokens(64, seed).into_iter().map(|token| token as i32).collect()).collect();
        let (lengths, slots) = ([5, 17, 1], [2, 0, 3]);
        let mut cache = Cache::new(&decoder, &weights, 4, 40);
        let mut inputs = vec![0; 3 * 17];
        for (row, (sequence, length)) in inputs.chunks_mut(17).zip(sequences.iter().zip(lengths)) {
            row[..length].copy_from_slice(&sequence[..length]);
        }
        let close = |found: burn_tensor::Tensor<B, 2>, ends: &[usize]| {
            for (found, (sequence, end)) in found.iter_dim(0).zip(sequences.iter().zip(ends)) {
                let expected = decoder.logits_at(&weights, &sequence[..*end], &[end - 1]);
                let norm = |x: burn_tensor::Tensor<B, 2>| {
                    let values = x.into_data().into_vec::<f32>().unwrap();
                    values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
                };
                let error = norm(found - expected.clone()) / norm(expected);
                assert!(error < tolerance, "{} {dtype:?} {error:e} after {end} tokens", B::name(device));
            }
        };
        close(decoder.prefill(&weights, &mut cache, &inputs, &slots, &lengths), &lengths);
        for round in 0..4 {
            let positions = lengths.map(|length| length + round);
            let next: Vec<i32> = sequences.iter().zip(positions).map(|(sequence, at)| sequence[at]).collect();
            let logits = decoder.decode(&weights, &mut cache, &next, &slots, &positions);
            close(logits, &positions.map(|position| position + 1));
        }
    }
}

#[test]
fn a_cache_gives_the_logits_of_the_whole_sequence() {
    on_cpu_and_wgpu!(check_logits);
}

/// More prompts than places, of which one outgrows the context before it begins and all do before they end.
fn check_tokens<B: DecoderBackend>(device: &B::Device) {
    let (decoder, weights) = model::<B>(device, 24, DType::F32);
    let prompts: Vec<Vec<u32>> =
        [3, 9, 1, 30, 24, 12].into_iter().enumerate().map(|(i, count)| tokens(count, i as u64)).collect();
    let generate = |sampling: Sampling, batch: usize, cache: bool| {
        let end_of_text = None;
        let generation = Generation { max_tokens: 28, end_of_text, sampling, streams: Vec::new(), batch, cache };
        let mut heard = vec![Vec::new(); prompts.len()];
        let (completions, pace) = complete(&decoder, &weights, &prompts, &generation, |i, token| {
            heard[i].push(token);
            if i == 1 && heard[i].len() == 13 { Next::Stop } else { Next::Continue }
        })
        .unwrap();
        assert!(heard.iter().eq(completions.iter().map(|completion| &completion.tokens)));
        assert!(pace.prompt_tokens >= prompts.iter().map(|prompt| prompt.len().min(24)).sum());
        completions
    };
    for sampling in [Sampling::GREEDY, Sampling { temperature: 0.8, top_p: 0.95, top_k: Some(100), seed: 3 }] {
        let with_cache = generate(sampling, 4, true);
        assert_eq!(with_cache, generate(sampling, 4, false));
        assert_eq!(with_cache, generate(sampling, 1, true));
        let ends = |(i, completion): (usize, &Completion)| match i {
            1 => completion.tokens.len() == 13 && completion.ending == Ending::Stopped,
            _ => completion.tokens.len() == 28 && completion.ending == Ending::Length,
        };
        assert!(with_cache.iter().enumerate().all(ends), "{with_cache:?}");
    }
}

#[test]
fn a_cache_changes_no_token() {
    on_cpu_and_wgpu!(check_tokens);
}

#[test]
fn an_end_of_text_ends_a_completion_and_frees_its_place() {
    let device = Default::default();
    let (decoder, weights) = model::<trainer_backends::Cpu>(&device, 64, DType::F32);
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| tokens(4, i)).collect();
    let generate = |end_of_text| {
        let sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        let generation =
            Generation { max_tokens: 12, end_of_text, sampling, streams: Vec::new(), batch: 2, cache: true };
        complete(&decoder, &weights, &prompts, &generation, |_, _| Next::Continue).unwrap().0
    };
    let whole = generate(None);
    let end = whole[1].tokens[5];
    for (completion, whole) in generate(Some(end)).iter().zip(&whole) {
        match whole.tokens.iter().position(|token| *token == end) {
            Some(at) => {
                assert_eq!((&completion.tokens[..], completion.ending), (&whole.tokens[..at], Ending::EndOfText))
            }
            None => assert_eq!((completion, completion.ending), (whole, Ending::Length)),
        }
    }
}

#[test]
fn sampling_from_the_command_line() {
    let place = Place::new();
    run(&mut place.train("run", "train.steps=60")).success();
    let generate = |rest: &str| {
        let mut command = trainer(&format!("generate --json {rest} --model"));
        let object = run(command.arg(place.path("run")).args(["--prompt", "def a(x, y):\n"])).success().json();
        let texts = object["completions"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap().to_owned());
        texts.collect::<Vec<_>>()
    };
    let greedy = generate("--max-tokens 24");
    assert_eq!(generate("--max-tokens 24 --seed 5"), greedy);
    // The corpus says nothing else after such a line.
    assert!(greedy[0].starts_with("    return x "), "{greedy:?}");
    assert_eq!(generate("--max-tokens 24 --temperature 1 --top-k 1"), greedy);
    let sampled = |seed: u32| generate(&format!("--max-tokens 24 --temperature 1.5 --samples 3 --seed {seed}"));
    let samples = sampled(1);
    assert_eq!(samples.len(), 3);
    assert_eq!(sampled(1), samples);
    assert_ne!(sampled(2), samples);
    assert!(samples[0] != samples[1] && samples[1] != samples[2], "{samples:?}");
    // As text, the prompt comes first.
    let text =
        run(trainer("generate --max-tokens 24 --model").arg(place.path("run")).args(["--prompt", "def a(x, y):\n"]));
    assert_eq!(text.success().stdout, format!("def a(x, y):\n{}\n", greedy[0]));
}

#[test]
fn several_prompts_and_stop_strings() {
    let place = Place::new();
    run(&mut place.train("run", "train.steps=60")).success();
    let generate = |rest: &[&str]| {
        let mut command = trainer("generate --json --max-tokens 40 --model");
        run(command.arg(place.path("run")).args(rest)).success().json()
    };
    let whole = generate(&["--prompt", "def a(x, y):\n", "--prompt", "def b("]);
    let text = |object: &serde_json::Value, i: usize| object["completions"][i]["text"].as_str().unwrap().to_owned();
    assert_eq!(whole["completions"].as_array().unwrap().len(), 2);
    assert_eq!(whole["completions"][1]["prompt"], "def b(");
    assert!(
        whole["tokens_per_s"].as_f64().unwrap() > 0.0 && whole["pace"]["prompt_tokens"].as_u64() >= Some(19),
        "{whole}"
    );
    assert_eq!(generate(&["--no-cache", "--prompt", "def a(x, y):\n"])["completions"][0]["text"], text(&whole, 0));
    assert_eq!(generate(&["--batch", "1", "--prompt", "def b("])["completions"][0]["text"], text(&whole, 1));

    let stopped = generate(&["--stop", "\n\n", "--stop", "no such text", "--prompt", "def a(x, y):\n"]);
    let expected = text(&whole, 0).split("\n\n").next().unwrap().to_owned();
    assert!(expected.len() < text(&whole, 0).len(), "it says more without a stop string: {whole}");
    assert_eq!(text(&stopped, 0), expected);
    assert_eq!(stopped["completions"][0]["ending"], "stopped");
    let mut command = trainer("generate --max-tokens 40 --stop");
    let streamed = run(command.args(["\n\n", "--prompt", "def a(x, y):\n", "--model"]).arg(place.path("run")));
    assert_eq!(streamed.success().stdout, format!("def a(x, y):\n{expected}\n"));
    let error = run(trainer("generate --prompt= --model").arg(place.path("run")));
    error.error(2, &["the prompt is empty"]);
}
