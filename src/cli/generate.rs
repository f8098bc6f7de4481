//! `trainer generate`

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::time::Instant;

use serde_json::json;
use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{GenerateArgs, Global};
use super::backend::{Task, with_backend};
use super::model::HostModel;
use super::{print, print_json};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::eval::generate::{Completion, Sampling, complete};

pub fn run(args: &GenerateArgs, global: &Global) -> Result<()> {
    let prompt = read_prompt(args)?;
    let mut model = HostModel::load(&args.model)?;
    let tokenizer = model.tokenizer()?;
    if tokenizer.vocab_size() > model.arch.vocab {
        return Err(Error::file(
            &args.model,
            format!("has a vocabulary of {}, its tokenizer one of {}", model.arch.vocab, tokenizer.vocab_size()),
        ));
    }
    let started = Instant::now();
    let completions = with_backend(global, Generate { args, model, tokenizer: &tokenizer, prompt: &prompt })?;
    let tokens: usize = completions.iter().map(|completion| completion.tokens.len()).sum();
    let per_second = tokens as f64 / started.elapsed().as_secs_f64();
    eprintln!("{tokens} tokens, {per_second:.1} tokens/s");
    if args.json {
        let completions: Vec<_> = completions
            .iter()
            .map(|c| Ok(json!({ "text": tokenizer.decode(&c.tokens)?, "tokens": c.tokens, "ending": c.ending })))
            .collect::<Result<_>>()?;
        return print_json(&json!({ "prompt": prompt, "completions": completions, "tokens_per_s": per_second }));
    }
    if completions.len() > 1 {
        for (i, completion) in completions.iter().enumerate() {
            print(&format!("--- {}\n{prompt}{}\n", i + 1, tokenizer.decode(&completion.tokens)?))?;
        }
    }
    Ok(())
}

fn read_prompt(args: &GenerateArgs) -> Result<String> {
    if let Some(prompt) = &args.prompt {
        return Ok(prompt.clone());
    }
    if let Some(path) = args.prompt_file.as_ref().filter(|path| path.as_os_str() != "-") {
        return fs::read_to_string(path).map_err(Error::io("read", path));
    }
    if io::stdin().is_terminal() {
        eprintln!("type the prompt, then Ctrl-D");
    }
    let mut prompt = String::new();
    io::stdin().read_to_string(&mut prompt).map_err(Error::io("read", "standard input"))?;
    Ok(prompt)
}

struct Generate<'a> {
    args: &'a GenerateArgs,
    model: HostModel,
    tokenizer: &'a Tokenizer,
    prompt: &'a str,
}

impl Task for Generate<'_> {
    type Output = Vec<Completion>;

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Vec<Completion>> {
        let Self { args, model, tokenizer, prompt } = self;
        let seq = model.arch.context;
        let (decoder, weights) = model.upload::<B>(device, seq)?;
        let prompts = vec![tokenizer.encode(prompt)?; args.samples];
        let sampling =
            Sampling { temperature: args.temperature, top_p: args.top_p, top_k: args.top_k, seed: args.seed };
        let stream = args.samples == 1 && !args.json;
        if stream {
            print(prompt)?;
        }
        let mut shown = 0;
        let mut tokens = Vec::new();
        let mut broken = Ok(());
        let end = Some(tokenizer.end_of_text());
        let completions = complete(&decoder, &weights, &prompts, end, args.max_tokens, sampling, |_, token| {
            if stream && broken.is_ok() {
                tokens.push(token);
                broken = show_new_text(tokenizer, &tokens, &mut shown);
            }
        })?;
        broken?;
        if stream {
            print("\n")?;
        }
        Ok(completions)
    }
}

/// Prints what the tokens add to the text so far, whole characters only.
fn show_new_text(tokenizer: &Tokenizer, tokens: &[u32], shown: &mut usize) -> Result<()> {
    let bytes = tokenizer.decode_bytes(tokens)?;
    let whole = match std::str::from_utf8(&bytes) {
        Ok(_) => bytes.len(),
        // A character's last bytes may come with the next token.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => bytes.len(),
    };
    if whole > *shown {
        print(&String::from_utf8_lossy(&bytes[*shown..whole]))?;
        *shown = whole;
    }
    Ok(())
}
