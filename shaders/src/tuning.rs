//! Sizes of launches that no rule decides: all give the same results but for the order of sums, and which is the fastest a
//! device has to tell.
//!
//! A choice that is not set is left to the kernel's own rule. Set ones hold for the whole process, and are to be changed
//! between operations only: an operation reads its choices more than once (for its scratch, then for its launch).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use cubecl::prelude::*;

use crate::device::Class;

/// What may be chosen, with its name and the rule's own value in the kernel's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Units that share a row of a layer norm x rows of a cube (norm.rs).
    NormUnits,
    /// Rows that a unit sums for the gradients of gamma and beta.
    NormRows,
    /// Units that share a row of a residual sum and its norm, forward (residual_norm.rs); 1: as two kernels.
    ResidualNormUnits,
    /// Backward: units of a row x rows of a cube.
    ResidualNormBackward,
    /// Rows that a unit sums for a bias' gradient (column_sums.rs, gelu.rs).
    SumRows,
    /// Units of a cube there.
    SumUnits,
    /// Units that share a row of logits (cross_entropy.rs).
    LossUnits,
    /// Partial sums x units of the second stage (squares.rs).
    Squares,
    /// Rows x columns of a unit x units of a cube (gemm.rs).
    Gemm,
    /// On tensor cores. Two numbers: planes of a cube x fragments of 16 queries a plane (attention/tensor_cores). Three:
    /// warpgroups x stages x rows of an instruction, 64 of wgmma and 16 of mma.sync (attention/cuda).
    AttentionForward,
    /// On tensor cores. Two numbers: planes of a cube x queries that are staged at a time. Three: as in forward.
    AttentionBackward,
    /// Elsewhere: rows of a unit x rows of the other side at a time x units of a cube (attention).
    AttentionForwardUnits,
    AttentionBackwardUnits,
    /// Of a new token (attention/decode.rs): units of a cube x keys that one reads at a time.
    AttentionDecode,
    /// Products of few rows (few_rows): outputs of a group of lanes x groups of a cube.
    FewRows,
    /// Both branches' products there, likewise; all groups share the outputs.
    FewRowsBranches,
    /// Units of a cube where each works on elements of its own (elementwise.rs).
    AdamwUnits,
    GeluUnits,
    ResidualUnits,
    RotaryUnits,
    EmbeddingUnits,
    EpilogueUnits,
    ClearUnits,
}

/// Up to three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(u64);

/// Bits of a number.
const BITS: u32 = 21;

impl Value {
    /// Of one to three numbers, each from 1 to 2^21 - 1.
    pub const fn new(numbers: &[usize]) -> Option<Self> {
        let (mut all, mut i) = (0, 0);
        if numbers.is_empty() || numbers.len() > 3 {
            return None;
        }
        while i < numbers.len() {
            if numbers[i] == 0 || numbers[i] >> BITS > 0 {
                return None;
            }
            all |= (numbers[i] as u64) << (BITS * i as u32);
            i += 1;
        }
        Some(Self(all))
    }

    /// `8x4x64`.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<usize>> = text.split('x').map(|number| number.parse().ok()).collect();
        Self::new(&numbers?)
    }

    /// The numbers; 0 where there are fewer.
    fn numbers(self) -> [usize; 3] {
        [0, 1, 2].map(|i| (self.0 >> (BITS * i)) as usize & ((1 << BITS) - 1))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.numbers();
        match (b, c) {
            (0, _) => write!(f, "{a}"),
            (_, 0) => write!(f, "{a}x{b}"),
            _ => write!(f, "{a}x{b}x{c}"),
        }
    }
}

/// Values of attention's choices for the kernels in CUDA C++.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
fn in_cuda<R: Runtime>(choice: Choice, client: &ComputeClient<R>) -> &'static [&'static [usize]] {
    use crate::attention::{Pass, cuda};
    match choice {
        Choice::AttentionForward => cuda::values(client, Pass::Forward),
        Choice::AttentionBackward => cuda::values(client, Pass::Backward),
        _ => &[],
    }
}

#[cfg(not(all(feature = "cuda", not(target_os = "macos"))))]
fn in_cuda<R: Runtime>(_: Choice, _: &ComputeClient<R>) -> &'static [&'static [usize]] {
    &[]
}

static SET: [AtomicU64; Choice::ALL.len()] = [const { AtomicU64::new(0) }; Choice::ALL.len()];

impl Choice {
    pub const ALL: [Self; 23] = [
        Self::NormUnits,
        Self::NormRows,
        Self::ResidualNormUnits,
        Self::ResidualNormBackward,
        Self::SumRows,
        Self::SumUnits,
        Self::LossUnits,
        Self::Squares,
        Self::Gemm,
        Self::AttentionForward,
        Self::AttentionBackward,
        Self::AttentionForwardUnits,
        Self::AttentionBackwardUnits,
        Self::AttentionDecode,
        Self::FewRows,
        Self::FewRowsBranches,
        Self::AdamwUnits,
        Self::GeluUnits,
        Self::ResidualUnits,
        Self::RotaryUnits,
        Self::EmbeddingUnits,
        Self::EpilogueUnits,
        Self::ClearUnits,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NormUnits => "norm.units",
            Self::NormRows => "norm.rows",
            Self::ResidualNormUnits => "residual-norm.units",
            Self::ResidualNormBackward => "residual-norm.backward",
            Self::SumRows => "sums.rows",
            Self::SumUnits => "sums.units",
            Self::LossUnits => "loss.units",
            Self::Squares => "squares",
            Self::Gemm => "gemm",
            Self::AttentionForward => "attention.forward",
            Self::AttentionBackward => "attention.backward",
            Self::AttentionForwardUnits => "attention.forward-units",
            Self::AttentionBackwardUnits => "attention.backward-units",
            Self::AttentionDecode => "attention.decode",
            Self::FewRows => "few-rows",
            Self::FewRowsBranches => "few-rows.branches",
            Self::AdamwUnits => "adamw.units",
            Self::GeluUnits => "gelu.units",
            Self::ResidualUnits => "residual.units",
            Self::RotaryUnits => "rotary.units",
            Self::EmbeddingUnits => "embedding.units",
            Self::EpilogueUnits => "epilogue.units",
            Self::ClearUnits => "clear.units",
        }
    }

    /// Sets it, or leaves it to the kernel's rule again. The value must be one of `values`.
    pub fn set(self, value: Option<Value>) {
        SET[self as usize].store(value.map_or(0, |value| value.0), Ordering::Relaxed);
    }

    fn get(self) -> Option<[usize; 3]> {
        let all = SET[self as usize].load(Ordering::Relaxed);
        (all != 0).then(|| Value(all).numbers())
    }

    pub(crate) fn one(self) -> Option<usize> {
        self.get().map(|[a, ..]| a)
    }

    /// A value of two numbers.
    pub(crate) fn two(self) -> Option<[usize; 2]> {
        self.get().and_then(|[a, b, c]| (c == 0).then_some([a, b]))
    }

    /// A value of three numbers.
    pub(crate) fn three(self) -> Option<[usize; 3]> {
        self.get().filter(|[.., c]| *c > 0)
    }

    /// What the device can run, the rule's own value among it; empty where its kernels do not read this choice.
    pub fn values<R: Runtime>(self, client: &ComputeClient<R>) -> Vec<Value> {
        let properties = client.properties();
        let narrow = Class::of(client) == Class::Narrow;
        let fragments = !properties.features.matmul.mma.is_empty();
        // Which number, if any, is the units of a cube.
        let (candidates, units): (&[&[usize]], Option<usize>) = match self {
            Self::NormUnits if narrow => (&[&[1, 4], &[1, 8], &[1, 16], &[1, 32], &[8, 1]], None),
            Self::NormUnits => (&[&[32, 1], &[64, 1], &[128, 1], &[256, 1], &[512, 1], &[1024, 1]], Some(0)),
            Self::NormRows | Self::SumRows => (&[&[16], &[32], &[64], &[128], &[256]], None),
            Self::ResidualNormUnits if narrow => (&[&[1], &[8], &[32]], None),
            Self::ResidualNormUnits => (&[&[1], &[32], &[64], &[128], &[256], &[512]], None),
            Self::ResidualNormBackward if narrow => (&[&[1, 1], &[8, 64], &[32, 64]], None),
            Self::ResidualNormBackward => (
                &[
                    &[1, 1],
                    &[128, 16],
                    &[128, 32],
                    &[128, 64],
                    &[128, 128],
                    &[256, 32],
                    &[256, 64],
                    &[512, 32],
                    &[512, 64],
                ],
                None,
            ),
            Self::SumUnits => (&[&[8], &[32], &[64], &[128], &[256]], Some(0)),
            Self::LossUnits => (&[&[8], &[32], &[64], &[128], &[256], &[512], &[1024]], Some(0)),
            Self::Squares if narrow => (&[&[128, 8], &[512, 8], &[2048, 8], &[512, 32]], Some(1)),
            Self::Squares => (&[&[16_384, 256], &[65_536, 256], &[262_144, 256], &[65_536, 1024]], Some(1)),
            Self::Gemm if narrow => (&[&[8, 8, 8], &[8, 16, 8], &[16, 8, 8], &[16, 16, 8]], None),
            Self::Gemm => (
                &[&[4, 4, 64], &[8, 4, 32], &[8, 4, 64], &[8, 4, 128], &[8, 8, 32], &[8, 8, 64], &[16, 4, 64]],
                Some(2),
            ),
            // Planes x fragments of 16 queries are staged in the 128 rows of one block, those of backward in half of one.
            Self::AttentionForward if fragments => (&[&[2, 1], &[2, 2], &[4, 1], &[4, 2], &[8, 1]], None),
            // A query's call of Philox is a lane's, 32 at a time, and its log-sum-exp a unit's.
            Self::AttentionBackward if fragments => (&[&[2, 32], &[2, 64], &[4, 32], &[4, 64]], None),
            Self::AttentionForward | Self::AttentionBackward => (&[], None),
            Self::AttentionForwardUnits if narrow => (&[&[2, 16, 8], &[4, 16, 8], &[4, 32, 8], &[8, 16, 8]], None),
            Self::AttentionBackwardUnits if narrow => (&[&[4, 16, 8], &[4, 32, 8], &[8, 16, 8], &[8, 32, 8]], None),
            // Where there are fragments, these kernels are for what tensor cores do not take.
            Self::AttentionForwardUnits | Self::AttentionBackwardUnits if fragments => (&[], None),
            Self::AttentionForwardUnits | Self::AttentionBackwardUnits => {
                (&[&[1, 16, 64], &[2, 16, 32], &[2, 16, 64], &[2, 16, 128], &[4, 16, 64], &[2, 32, 64]], Some(2))
            }
            Self::AttentionDecode if narrow => (&[&[8, 4], &[32, 2], &[32, 4]], None),
            Self::AttentionDecode => (&[&[64, 4], &[128, 2], &[128, 4], &[256, 2], &[256, 4]], Some(0)),
            Self::FewRows | Self::FewRowsBranches if narrow => (&[&[2, 1], &[4, 1], &[8, 1]], None),
            Self::FewRows | Self::FewRowsBranches => (&[&[2, 4], &[2, 8], &[4, 2], &[4, 4], &[4, 8], &[8, 4]], None),
            Self::AdamwUnits
            | Self::GeluUnits
            | Self::ResidualUnits
            | Self::RotaryUnits
            | Self::EmbeddingUnits
            | Self::EpilogueUnits
            | Self::ClearUnits => (&[&[8], &[32], &[64], &[128], &[256], &[512], &[1024]], Some(0)),
        };
        let most = properties.hardware.max_units_per_cube as usize;
        let fits = |numbers: &[usize]| {
            let count = units.map_or(1, |at| numbers[at]);
            count <= most && (narrow || units.is_none() || count >= 32)
        };
        let candidates = candidates.iter().filter(|numbers| fits(numbers));
        in_cuda(self, client).iter().chain(candidates).filter_map(|numbers| Value::new(numbers)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_they_are_read() {
        for text in ["64", "4x2", "8x4x64", "262144x256"] {
            assert_eq!(Value::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "0", "4x", "x4", "4x0", "1x2x3x4", "-1", "2097152", "four"] {
            assert_eq!(Value::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_differ() {
        let mut names = Choice::ALL.map(Choice::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn a_choice_is_the_rules_until_it_is_set() {
        // A choice that no test of this crate launches with.
        let choice = Choice::Squares;
        assert_eq!(choice.two(), None);
        choice.set(Value::parse("512x8"));
        assert_eq!(choice.two(), Some([512, 8]));
        choice.set(None);
        assert_eq!(choice.two(), None);
    }
}
