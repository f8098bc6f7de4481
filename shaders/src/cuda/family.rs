//! Kernels in CUDA C++ that are used, or refused, together.

use std::sync::atomic::{AtomicBool, Ordering};

/// By what is computed, and by the instructions that multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFamily {
    /// Matrix products of compute capability 9.0 (hopper_gemm.cu).
    WgmmaProducts,
    /// Of 8.0 and later (ampere_gemm.cu).
    MmaProducts,
    /// Attention (attention.cuh), likewise.
    WgmmaAttention,
    MmaAttention,
}

static REFUSED: [AtomicBool; KernelFamily::ALL.len()] = [const { AtomicBool::new(false) }; KernelFamily::ALL.len()];

impl KernelFamily {
    pub const ALL: [Self; 4] = [Self::WgmmaProducts, Self::MmaProducts, Self::WgmmaAttention, Self::MmaAttention];

    pub const fn name(self) -> &'static str {
        match self {
            Self::WgmmaProducts => "products by wgmma",
            Self::MmaProducts => "products by mma.sync",
            Self::WgmmaAttention => "attention by wgmma",
            Self::MmaAttention => "attention by mma.sync",
        }
    }

    /// What a device of a compute capability has, each list with the family first that is taken unless it is refused.
    pub fn of_capability((major, minor): (u32, u32)) -> Vec<&'static [Self]> {
        match (major, minor) {
            (9, 0) => vec![&[Self::WgmmaProducts, Self::MmaProducts], &[Self::WgmmaAttention, Self::MmaAttention]],
            (8.., _) => vec![&[Self::MmaProducts], &[Self::MmaAttention]],
            _ => Vec::new(),
        }
    }

    /// No rule takes this family from now on, in the whole process; a setting or a choice that names one of its kernels still
    /// does. To be called between operations.
    pub fn refuse(self) {
        REFUSED[self as usize].store(true, Ordering::Relaxed);
    }

    pub fn is_refused(self) -> bool {
        REFUSED[self as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        let first =
            |capability| KernelFamily::of_capability(capability).into_iter().map(|of| of[0]).collect::<Vec<_>>();
        assert_eq!(first((9, 0)), [KernelFamily::WgmmaProducts, KernelFamily::WgmmaAttention]);
        // What comes after Hopper has no wgmma.
        for capability in [(8, 0), (8, 9), (10, 0), (12, 0)] {
            assert_eq!(first(capability), [KernelFamily::MmaProducts, KernelFamily::MmaAttention], "{capability:?}");
        }
        assert!(first((7, 5)).is_empty());
    }

    #[test]
    fn only_the_refused_is_refused() {
        // Not what another test of this process launches with.
        assert!(!KernelFamily::MmaProducts.is_refused());
        KernelFamily::WgmmaProducts.refuse();
        assert!(KernelFamily::WgmmaProducts.is_refused() && !KernelFamily::WgmmaAttention.is_refused());
    }
}
