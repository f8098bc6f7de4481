//! Registers to places in the register file.
//!
//! NVRTC numbers registers as if there were no end of them, each written once. Packed by the span in which they live, the
//! registers of a warp stay in the cache; a span is what a thread sees, so diverged lanes may share places with each other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::lower::{Draft, Ref};
use crate::program::{Kind, LANES};

/// Byte offsets of the virtual registers, and the size of the file. `wide` says which are doubles; branch targets are
/// instruction numbers.
pub fn allocate(code: &[Draft], wide: &[bool]) -> (Vec<u32>, usize) {
    let spans = spans(code, wide.len());
    let mut order: Vec<u32> = (0..wide.len() as u32).filter(|&v| spans[v as usize].0 <= spans[v as usize].1).collect();
    order.sort_unstable_by_key(|&v| spans[v as usize].0);
    // For words and for doubles: places in use with the end of their span, free places, and how many there are.
    let mut files = [File::default(), File::default()];
    let mut places = vec![0u32; wide.len()];
    for v in order {
        let (start, end) = spans[v as usize];
        places[v as usize] = files[usize::from(wide[v as usize])].place(start, end);
    }
    let (word, double) = (LANES as u32 * 4, LANES as u32 * 8);
    let words_at = files[1].count * double;
    for (v, place) in places.iter_mut().enumerate() {
        *place = if wide[v] { *place * double } else { words_at + *place * word };
    }
    (places, (words_at + files[0].count * word) as usize)
}

#[derive(Default)]
struct File {
    used: BinaryHeap<Reverse<(usize, u32)>>,
    free: Vec<u32>,
    count: u32,
}

impl File {
    /// A place that nothing else uses from `start` to `end`, both included.
    fn place(&mut self, start: usize, end: usize) -> u32 {
        while let Some(&Reverse((last, place))) = self.used.peek() {
            if last >= start {
                break;
            }
            self.used.pop();
            self.free.push(place);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.used.push(Reverse((end, place)));
        place
    }
}

/// First and last instruction at which each register holds a value that matters, over all ways through the code.
fn spans(code: &[Draft], registers: usize) -> Vec<(usize, usize)> {
    let mut spans = vec![(usize::MAX, 0); registers];
    let mut widen = |v: usize, at: usize| {
        let (start, end) = spans[v];
        spans[v] = (start.min(at), end.max(at));
    };
    let blocks = Blocks::of(code);
    let live_out = blocks.live_out(code, registers);
    for (block, &(first, last)) in blocks.bounds.iter().enumerate() {
        let mut live = live_out[block].clone();
        for v in ones(&live) {
            widen(v, last);
        }
        for at in (first..=last).rev() {
            step(&code[at], &mut live);
            code[at].references(|reference| {
                if let Ref::Use(v) | Ref::Def(v) = reference {
                    widen(v as usize, at);
                }
            });
        }
        for v in ones(&live) {
            widen(v, first);
        }
    }
    spans
}

/// From the registers live after an instruction to those live before it.
fn step(draft: &Draft, live: &mut [u64]) {
    if draft.guard.is_none() {
        draft.references(|reference| {
            if let Ref::Def(v) = reference {
                live[v as usize / 64] &= !(1 << (v % 64));
            }
        });
    }
    draft.references(|reference| {
        if let Ref::Use(v) = reference {
            live[v as usize / 64] |= 1 << (v % 64);
        }
    });
}

fn ones(set: &[u64]) -> impl Iterator<Item = usize> + '_ {
    set.iter()
        .enumerate()
        .flat_map(|(word, &bits)| (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit))
}

/// Runs of instructions that are entered at the first and left at the last.
struct Blocks {
    bounds: Vec<(usize, usize)>,
    successors: Vec<Vec<usize>>,
}

impl Blocks {
    fn of(code: &[Draft]) -> Self {
        let mut leads = vec![false; code.len() + 1];
        leads[0] = true;
        for (at, draft) in code.iter().enumerate() {
            let targets = draft.targets();
            if draft.kind == Kind::Return || !targets.is_empty() {
                leads[at + 1] = true;
            }
            for target in targets {
                leads[target] = true;
            }
        }
        let firsts: Vec<usize> = (0..code.len()).filter(|&at| leads[at]).collect();
        let block_at = |at: usize| firsts.binary_search(&at).expect("a target leads a block");
        let mut bounds = Vec::new();
        let mut successors = Vec::new();
        for (block, &first) in firsts.iter().enumerate() {
            let last = firsts.get(block + 1).map_or(code.len(), |&next| next) - 1;
            let draft = &code[last];
            let mut next: Vec<usize> = draft.targets().into_iter().map(block_at).collect();
            let leaves = matches!(draft.kind, Kind::Branch | Kind::Return) && draft.guard.is_none();
            if !leaves && last + 1 < code.len() {
                next.push(block_at(last + 1));
            }
            bounds.push((first, last));
            successors.push(next);
        }
        Self { bounds, successors }
    }

    fn live_out(&self, code: &[Draft], registers: usize) -> Vec<Vec<u64>> {
        let words = registers.div_ceil(64);
        let mut live_in = vec![vec![0u64; words]; self.bounds.len()];
        let mut live_out = live_in.clone();
        loop {
            let mut changed = false;
            for block in (0..self.bounds.len()).rev() {
                let mut live = vec![0u64; words];
                for &next in &self.successors[block] {
                    for (to, from) in live.iter_mut().zip(&live_in[next]) {
                        *to |= from;
                    }
                }
                live_out[block].clone_from(&live);
                let (first, last) = self.bounds[block];
                for at in (first..=last).rev() {
                    step(&code[at], &mut live);
                }
                if live != live_in[block] {
                    live_in[block] = live;
                    changed = true;
                }
            }
            if !changed {
                return live_out;
            }
        }
    }
}
