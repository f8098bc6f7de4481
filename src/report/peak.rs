//! Peak rates of devices, for MFU and for floors.

use crate::config::Precision;

/// (part of the device's name, dense fp16/bf16 tensor-core FLOP/s, fp32 FLOP/s outside them, bytes/s of its memory), from
/// NVIDIA's data sheets; of parts of one name with several memories, the least. The first whose words all stand in the name
/// counts, so the narrower one stands first.
const PEAKS: [(&str, f64, f64, f64); 14] = [
    ("H200 NVL", 836e12, 60e12, 4_800e9),
    ("H200", 989e12, 67e12, 4_800e9),
    ("H100 PCIe", 756e12, 51e12, 2_000e9),
    ("H100 NVL", 835e12, 60e12, 3_900e9),
    ("H100", 989e12, 67e12, 3_350e9),
    ("A100", 312e12, 19.5e12, 1_555e9),
    ("A800", 312e12, 19.5e12, 1_935e9),
    ("L40S", 362e12, 91.6e12, 864e9),
    ("L40", 181e12, 90.5e12, 864e9),
    ("L4", 121e12, 30.3e12, 300e9),
    ("A10G", 70e12, 35e12, 600e9),
    ("A40", 149.7e12, 37.4e12, 696e9),
    ("V100", 125e12, 15.7e12, 900e9),
    ("RTX 4090", 165.2e12, 82.6e12, 1_008e9),
];

fn peaks(device: &str) -> Option<&'static (&'static str, f64, f64, f64)> {
    // "A100-SXM4-80GB" is of A100's words; "RTX A4000" is no A40, and some parts are slower than what they are named after.
    let words: Vec<&str> = device.split([' ', '-']).collect();
    let of_name = |(name, ..): &&(&str, f64, f64, f64)| name.split(' ').all(|word| words.contains(&word));
    (!["Laptop", "D"].iter().any(|slower| words.contains(slower))).then(|| PEAKS.iter().find(of_name)).flatten()
}

/// FLOP/s that a device of this name can reach in matrix products, where it is known.
pub fn peak_flops(device: &str, precision: Precision) -> Option<f64> {
    let (_, half, single, _) = peaks(device)?;
    Some(match precision {
        Precision::Fp16 | Precision::Bf16 => *half,
        Precision::Fp32 => *single,
    })
}

/// Bytes a second that the memory of a device of this name reads and writes, where it is known.
pub fn memory_rate(device: &str) -> Option<f64> {
    peaks(device).map(|(.., rate)| *rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_drivers_give_them() {
        assert_eq!(peak_flops("NVIDIA A100-SXM4-80GB", Precision::Fp16), Some(312e12));
        assert_eq!(peak_flops("NVIDIA H100 PCIe", Precision::Bf16), Some(756e12));
        assert_eq!(peak_flops("NVIDIA H100 80GB HBM3", Precision::Fp32), Some(67e12));
        assert_eq!(peak_flops("NVIDIA L40S", Precision::Fp16), Some(362e12));
        assert_eq!(peak_flops("llvmpipe (LLVM 15.0.6, 256 bits)", Precision::Fp32), None);
        assert_eq!(peak_flops("NVIDIA L40", Precision::Fp16), Some(181e12));
        assert_eq!(peak_flops("NVIDIA H200 NVL", Precision::Fp16), Some(836e12));
        assert_eq!(peak_flops("NVIDIA GeForce RTX 4090", Precision::Fp16), Some(165.2e12));
        for unknown in ["NVIDIA RTX A4000", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D"] {
            assert_eq!(peak_flops(unknown, Precision::Fp16), None, "{unknown}");
        }
        assert_eq!(memory_rate("NVIDIA H200"), Some(4.8e12));
        assert_eq!(memory_rate("llvmpipe (LLVM 15.0.6, 256 bits)"), None);
    }
}
