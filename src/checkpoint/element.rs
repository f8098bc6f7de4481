//! Little-endian bytes of f32, f16 and bf16 tensors, to and from f32.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::error::{Error, Result};

/// Elements that one task converts.
const PIECE: usize = 1 << 16;

/// The element types that weights come in.
pub const WEIGHT_DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

/// The name that PyTorch and config.json have for a weight's element type; `None` for any other.
pub fn torch_name(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F32 => Some("float32"),
        Dtype::F16 => Some("float16"),
        Dtype::BF16 => Some("bfloat16"),
        _ => None,
    }
}

/// The inverse of [`torch_name`].
pub fn from_torch_name(name: &str) -> Option<Dtype> {
    WEIGHT_DTYPES.into_iter().find(|dtype| torch_name(*dtype) == Some(name))
}

fn unsupported(dtype: Dtype) -> Error {
    Error::input(format!("element type {dtype} is not one of F32, F16, BF16: convert the weights first"))
}

/// Converts little-endian elements of `dtype` to f32, on all cores. `bytes` needs no alignment.
///
/// # Errors
/// If `dtype` is not a weight's, or `bytes` are not those of `out.len()` elements.
pub fn decode_f32(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if torch_name(dtype).is_none() {
        return Err(unsupported(dtype));
    }
    let size = dtype.bitsize() / 8;
    if bytes.len() != out.len() * size {
        return Err(Error::input(format!(
            "{} elements of {dtype} need {} bytes, found {}",
            out.len(),
            out.len() * size,
            bytes.len()
        )));
    }
    out.par_chunks_mut(PIECE).zip(bytes.par_chunks(PIECE * size)).for_each(|(out, bytes)| match dtype {
        Dtype::F16 => match aligned::<f16>(bytes) {
            Some(values) => values.convert_to_f32_slice(out),
            None => each(bytes, out, |pair| f16::from_le_bytes(pair).to_f32()),
        },
        Dtype::BF16 => match aligned::<bf16>(bytes) {
            Some(values) => values.convert_to_f32_slice(out),
            None => each(bytes, out, |pair| bf16::from_le_bytes(pair).to_f32()),
        },
        _ => each(bytes, out, f32::from_le_bytes),
    });
    Ok(())
}

fn aligned<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Option<&[T]> {
    if cfg!(target_endian = "little") { bytemuck::try_cast_slice(bytes).ok() } else { None }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    out.iter_mut().zip(elements).for_each(|(out, element)| *out = value(*element));
}

/// How many little-endian elements of `dtype` are NaN or infinite, counted on all cores. `bytes` needs no alignment.
///
/// # Errors
/// If `dtype` is not a weight's.
pub fn count_non_finite(dtype: Dtype, bytes: &[u8]) -> Result<u64> {
    // An exponent of ones.
    let halves = |mask: u16| {
        let chunks = bytes.par_chunks(PIECE * 2).map(move |chunk| {
            chunk.as_chunks::<2>().0.iter().filter(|pair| u16::from_le_bytes(**pair) & mask == mask).count() as u64
        });
        chunks.sum()
    };
    match dtype {
        Dtype::F16 => Ok(halves(0x7c00)),
        Dtype::BF16 => Ok(halves(0x7f80)),
        Dtype::F32 => {
            let chunks = bytes.par_chunks(PIECE * 4).map(|chunk| {
                chunk.as_chunks::<4>().0.iter().filter(|word| !f32::from_le_bytes(**word).is_finite()).count() as u64
            });
            Ok(chunks.sum())
        }
        _ => Err(unsupported(dtype)),
    }
}

/// Rounds f32 values to `dtype` (to nearest, ties to even) and gives their little-endian bytes; f32 is not copied where
/// the host is little-endian.
///
/// # Errors
/// If `dtype` is not a weight's, or a finite value is too large for it: a weight must not silently become infinite.
pub fn encode_f32(values: &[f32], dtype: Dtype) -> Result<Cow<'_, [u8]>> {
    match dtype {
        Dtype::F32 if cfg!(target_endian = "little") => Ok(Cow::Borrowed(bytemuck::cast_slice(values))),
        Dtype::F32 => Ok(Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())),
        Dtype::F16 => rounded(values, dtype, |piece, bytes| {
            let mut halves = vec![f16::ZERO; piece.len()];
            halves.convert_from_f32_slice(piece);
            bytes.as_chunks_mut::<2>().0.iter_mut().zip(&halves).for_each(|(to, half)| *to = half.to_le_bytes());
            halves.iter().zip(piece).position(|(half, value)| half.is_infinite() && value.is_finite())
        }),
        Dtype::BF16 => rounded(values, dtype, |piece, bytes| {
            let mut halves = vec![bf16::ZERO; piece.len()];
            halves.convert_from_f32_slice(piece);
            bytes.as_chunks_mut::<2>().0.iter_mut().zip(&halves).for_each(|(to, half)| *to = half.to_le_bytes());
            halves.iter().zip(piece).position(|(half, value)| half.is_infinite() && value.is_finite())
        }),
        _ => Err(unsupported(dtype)),
    }
}

/// `round` fills the bytes of a piece and returns the index of a value that did not fit.
fn rounded(
    values: &[f32],
    dtype: Dtype,
    round: impl Fn(&[f32], &mut [u8]) -> Option<usize> + Sync,
) -> Result<Cow<'_, [u8]>> {
    let mut bytes = vec![0; values.len() * 2];
    let overflow = values
        .par_chunks(PIECE)
        .zip(bytes.par_chunks_mut(PIECE * 2))
        .find_map_any(|(piece, bytes)| round(piece, bytes).map(|index| piece[index]));
    match overflow {
        None => Ok(Cow::Owned(bytes)),
        Some(value) => Err(Error::input(format!("the value {value:e} is too large for {dtype}: choose BF16 or F32"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Awkward ones: zeros of both signs, subnormals, ties, the largest f16, infinities.
    const VALUES: [f32; 12] = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        6.0e-8,
        1.0e-5,
        65504.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.333_333_34,
    ];

    #[test]
    fn every_dtype_round_trips_to_its_nearest_value_at_any_alignment() {
        let values: Vec<f32> = VALUES.iter().cycle().take(3 * PIECE + 5).copied().collect();
        for dtype in WEIGHT_DTYPES {
            let encoded = encode_f32(&values, dtype).unwrap();
            let nearest = |value: f32| match dtype {
                Dtype::F16 => f16::from_f32(value).to_f32(),
                Dtype::BF16 => bf16::from_f32(value).to_f32(),
                _ => value,
            };
            for shift in [0, 1] {
                let mut storage = vec![0; shift];
                storage.extend_from_slice(&encoded);
                let mut decoded = vec![9.0; values.len()];
                decode_f32(dtype, &storage[shift..], &mut decoded).unwrap();
                for (decoded, value) in decoded.iter().zip(&values) {
                    assert_eq!(decoded.to_bits(), nearest(*value).to_bits(), "{value} in {dtype}");
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_are_counted() {
        for dtype in WEIGHT_DTYPES {
            let mut values: Vec<f32> = VALUES.iter().cycle().take(2 * PIECE + 7).copied().collect();
            values.push(f32::NAN);
            let expected = values.iter().filter(|value| !value.is_finite()).count() as u64;
            assert_eq!(count_non_finite(dtype, &encode_f32(&values, dtype).unwrap()).unwrap(), expected, "{dtype}");
        }
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        assert_eq!(count_non_finite(Dtype::F16, &halves).unwrap(), 2 << 10);
        assert_eq!(count_non_finite(Dtype::BF16, &halves).unwrap(), 2 << 7);
        assert!(count_non_finite(Dtype::I32, &[0; 4]).is_err());
    }

    #[test]
    fn every_half_bit_pattern_survives() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut values = vec![0.0; 1 << 16];
            decode_f32(dtype, &bytes, &mut values).unwrap();
            let back = encode_f32(&values, dtype).unwrap();
            for (pair, (value, original)) in
                back.as_chunks::<2>().0.iter().zip(values.iter().zip(bytes.as_chunks::<2>().0))
            {
                // A signalling NaN comes back quiet.
                assert!(pair == original || value.is_nan(), "{original:?} in {dtype}");
            }
        }
    }

    #[test]
    fn what_cannot_be_converted_is_refused() {
        let message = encode_f32(&[1.0, 70_000.0], Dtype::F16).unwrap_err().to_string();
        assert!(message.contains("7e4 is too large for F16"), "{message}");
        assert!(encode_f32(&[f32::MAX], Dtype::BF16).is_err());
        assert!(encode_f32(&[1.0], Dtype::I64).is_err());
        assert!(decode_f32(Dtype::F16, &[0; 3], &mut [0.0; 2]).is_err());
        assert!(decode_f32(Dtype::I32, &[0; 8], &mut [0.0; 2]).is_err());
        assert_eq!(from_torch_name("bfloat16"), Some(Dtype::BF16));
        assert_eq!(from_torch_name("int8"), None);
    }
}
