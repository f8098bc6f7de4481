//! The built-in corpus: small Python exercises, textbook style, made by a seeded generator.
//!
//! An exercise is a signature, a docstring that states the task, and a correct body; beside it stand assertions that decide
//! whether another body is correct too. Every program, which is a combination of family, names and constants, is either for
//! training or held out, whatever the seed: see [`Generator`] and [`held_out`].

mod draw;
mod families;
mod family;
mod value;

use draw::Draw;
use family::{Draft, Family};
use std::collections::HashSet;

/// The byte-level BPE of the demo (a Hugging Face tokenizer.json), made by scripts/make_demo_tokenizer.rs from this corpus.
pub fn demo_tokenizer_json() -> &'static str {
    include_str!("../../../assets/demo-tokenizer.json")
}

/// One exercise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exercise {
    /// The kind of task, one of [`families`].
    pub family: &'static str,
    /// The `def` line and the docstring, through the line that closes it and its newline.
    pub prompt: String,
    /// A correct body, indented by four spaces, with a newline at its end.
    pub solution: String,
    /// `assert` lines on calls of the function, each with a newline.
    pub tests: String,
}

impl Exercise {
    /// What a model trains on: the prompt and its solution. Documents are separated by the end-of-text token.
    pub fn document(&self) -> String {
        format!("{}{}", self.prompt, self.solution)
    }
}

/// The names of all families.
pub fn families() -> Vec<&'static str> {
    families::all().map(|family| family.name).collect()
}

/// The two sides of the split.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Training = 0,
    HeldOut = 1,
}

/// The exercises of one seed, each reached by its index alone. It yields no held-out one.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The exercise at `index`, the same for the same seed on every platform. Each run of [`families`]`().len()` indices that
    /// starts at a multiple of it has every family once, in random order.
    pub fn exercise(&self, index: u64) -> Exercise {
        exercise(self.seed, Side::Training, index)
    }
}

/// The first `count` documents of `seed`.
pub fn corpus(seed: u64, count: u64) -> impl Iterator<Item = String> {
    let generator = Generator::new(seed);
    (0..count).map(move |index| generator.exercise(index).document())
}

/// `count` different exercises whose programs occur in no training corpus of any seed, spread evenly over the families.
///
/// The split is made by a hash of `def` line and body, so they differ from every trained exercise in a name or a constant,
/// not only in the wording or the docstring's example. Where fewer exist (thousands do), it gives those.
pub fn held_out(seed: u64, count: usize) -> Vec<Exercise> {
    let mut seen = HashSet::new();
    let candidates = (0..(count as u64).saturating_mul(64)).map(|index| exercise(seed, Side::HeldOut, index));
    candidates.filter(|exercise| seen.insert(exercise.prompt.clone())).take(count).collect()
}

fn exercise(seed: u64, side: Side, index: u64) -> Exercise {
    let family = family_at(seed, side, index);
    // Each family has programs on both sides (tested); the bound makes the search end for certain.
    const ATTEMPTS: u64 = 10_000;
    let draft_of = |attempt: u64| family.draft(&mut Draw::new(&[seed, side as u64, index, attempt]));
    let on_side = |draft: &Draft| draft.is_held_out() == (side == Side::HeldOut);
    let draft = (0..ATTEMPTS).map(draft_of).find(on_side).unwrap_or_else(|| draft_of(0));
    draft.finish(family.name)
}

fn family_at(seed: u64, side: Side, index: u64) -> &'static Family {
    let mut order: Vec<&'static Family> = families::all().collect();
    let (block, place) = (index / order.len() as u64, (index % order.len() as u64) as usize);
    Draw::new(&[seed, side as u64, block]).shuffle(&mut order);
    order[place]
}

#[cfg(test)]
mod tests;
