//! `trainer generate`

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use serde_json::json;
use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{GenerateArgs, Global};
use super::backend::{Task, check_precision, with_backend};
use super::model::HostModel;
use super::{print, print_json};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::eval::generate::stop::Text;
use crate::eval::generate::{Ending, Generation, Next, Pace, Sampling, complete};

pub fn run(args: &GenerateArgs, global: &Global) -> Result<()> {
    let prompts = read_prompts(args)?;
    let mut model = HostModel::load(&args.model)?;
    let tokenizer = model.tokenizer()?;
    if tokenizer.vocab_size() > model.arch.vocab {
        return Err(Error::file(
            &args.model,
            format!("has a vocabulary of {}, its tokenizer one of {}", model.arch.vocab, tokenizer.vocab_size()),
        ));
    }
    let (completed, pace) = with_backend(global, Generate { args, model, tokenizer: &tokenizer, prompts: &prompts })?;
    let generated = completed.iter().map(|completed| completed.tokens.len()).sum();
    eprintln!("{}", told(generated, &pace));
    let prompt_of = |i: usize| &prompts[i / args.samples];
    if args.json {
        let completions: Vec<_> = completed
            .iter()
            .enumerate()
            .map(|(i, c)| json!({ "prompt": prompt_of(i), "text": c.text, "tokens": c.tokens, "ending": c.ending }))
            .collect();
        return print_json(&json!({
            "completions": completions,
            "tokens_per_s": pace.tokens_per_s(),
            "prompt_tokens_per_s": pace.prompt_tokens_per_s(),
            "pace": pace,
        }));
    }
    if completed.len() > 1 {
        for (i, completed) in completed.iter().enumerate() {
            print(&format!("--- {}\n{}{}\n", i + 1, prompt_of(i), completed.text))?;
        }
    }
    Ok(())
}

/// The rate is that of tokens behind each prompt's first, which comes with the prompt.
fn told(generated: usize, pace: &Pace) -> String {
    let read = format!("read {} tokens, {:.0} tokens/s", pace.prompt_tokens, pace.prompt_tokens_per_s());
    let rate = match pace.tokens {
        0 => String::new(),
        _ => format!(", {:.1} tokens/s", pace.tokens_per_s()),
    };
    format!("{read}; generated {generated} tokens{rate}")
}

fn read_prompts(args: &GenerateArgs) -> Result<Vec<String>> {
    if !args.prompt.is_empty() {
        return Ok(args.prompt.clone());
    }
    if !args.prompt_file.is_empty() {
        return args.prompt_file.iter().map(|path| read_prompt(path)).collect();
    }
    if io::stdin().is_terminal() {
        eprintln!("type the prompt, then Ctrl-D");
    }
    Ok(vec![read_prompt(Path::new("-"))?])
}

fn read_prompt(path: &Path) -> Result<String> {
    if path.as_os_str() != "-" {
        let bytes = fs::read(path).map_err(Error::input_file("read", path))?;
        return String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8: expected text"));
    }
    let mut prompt = String::new();
    io::stdin().read_to_string(&mut prompt).map_err(Error::io("read", "standard input"))?;
    Ok(prompt)
}

struct Generate<'a> {
    args: &'a GenerateArgs,
    model: HostModel,
    tokenizer: &'a Tokenizer,
    prompts: &'a [String],
}

struct Completed {
    text: String,
    tokens: Vec<u32>,
    ending: Ending,
}

impl Task for Generate<'_> {
    type Output = (Vec<Completed>, Pace);

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Self::Output> {
        let Self { args, model, tokenizer, prompts } = self;
        let dtype = check_precision::<B>(device, args.precision)?;
        let seq = model.arch.context;
        let (decoder, weights) = model.upload_as::<B>(device, seq, dtype)?;
        let mut tokens = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            let prompt = tokenizer.encode(prompt)?;
            if prompt.len() > seq {
                eprintln!(
                    "prompt {} has {} tokens, more than the model's context of {seq}: only its end is read",
                    i + 1,
                    prompt.len()
                );
            }
            tokens.extend(vec![prompt; args.samples]);
        }
        let generation = Generation {
            max_tokens: args.max_tokens,
            end_of_text: Some(tokenizer.end_of_text()),
            sampling: Sampling { temperature: args.temperature, top_p: args.top_p, top_k: args.top_k, seed: args.seed },
            streams: Vec::new(),
            batch: args.batch,
            cache: !args.no_cache,
        };
        let stream = tokens.len() == 1 && !args.json;
        if stream {
            print(&prompts[0])?;
        }
        let mut texts: Vec<Text> = tokens.iter().map(|_| Text::new(tokenizer, &args.stop)).collect();
        let mut broken = Ok(());
        let (completions, pace) = complete(&decoder, &weights, &tokens, &generation, |i, token| {
            let text = &mut texts[i];
            let pushed = text.push(token).and_then(|ended| {
                if stream {
                    print(&text.fresh(false))?;
                }
                Ok(ended)
            });
            match pushed {
                Ok(false) => Next::Continue,
                Ok(true) => Next::Stop,
                Err(error) => {
                    broken = Err(error);
                    Next::Stop
                }
            }
        })?;
        broken?;
        if stream {
            print(&format!("{}\n", texts[0].fresh(true)))?;
        }
        let completed = completions.into_iter().zip(&texts).map(|(completion, text)| Completed {
            text: text.text(),
            tokens: completion.tokens,
            ending: completion.ending,
        });
        Ok((completed.collect(), pace))
    }
}
