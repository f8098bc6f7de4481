//! Loops compiled for the widest vectors that the processor has, and elementary functions that such loops can inline.

/// Runs `body` compiled for the best instruction set found at run time; its loops are vectorised by the compiler.
#[inline(always)]
pub fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// e^x to within 2 units in the last place; saturates at e^-87 and e^88, and keeps NaN.
///
/// Range reduction by multiples of ln 2 in two parts and a degree-6 polynomial, as in Cephes' expf.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 x 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons rather than min and max, which would turn NaN into a bound.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    f32::from_bits(value.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// tanh by e^2x; absolute error below 2e-7, which is what GELU needs.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// Sum in 16 interleaved parts, so that it vectorises; the order depends on the length alone.
#[inline(always)]
pub fn sum(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let mut parts = [0.0f32; 16];
    for (i, value) in values.enumerate() {
        parts[i % 16] += value;
    }
    parts.iter().sum()
}

/// Dot product in 16 interleaved parts.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0.0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..16 {
            parts[i] += a[i] * b[i];
        }
    }
    parts.iter().sum::<f32>() + tail
}

/// Adds to `out` the rows of `rows`, `stride` apart, each times its weight, in their order. Several at a time, so that `out` is
/// read and written once for all of them.
#[inline(always)]
pub fn add_weighted(out: &mut [f32], weights: &[f32], rows: &[f32], stride: usize) {
    const AT_A_TIME: usize = 8;
    let len = out.len();
    let row = |index: usize| &rows[index * stride..][..len];
    let groups = weights.len() / AT_A_TIME;
    for (group, weights) in weights.chunks_exact(AT_A_TIME).enumerate() {
        let rows: [&[f32]; AT_A_TIME] = std::array::from_fn(|i| row(group * AT_A_TIME + i));
        for at in 0..len {
            let mut sum = out[at];
            for i in 0..AT_A_TIME {
                sum += weights[i] * rows[i][at];
            }
            out[at] = sum;
        }
    }
    for (index, weight) in weights.iter().enumerate().skip(groups * AT_A_TIME) {
        out.iter_mut().zip(row(index)).for_each(|(out, value)| *out += weight * value);
    }
}

/// Largest element, NaN if there is one (`f32::max` would drop it and hide an overflow).
#[inline(always)]
pub fn max(values: &[f32]) -> f32 {
    let mut parts = [f32::NEG_INFINITY; 16];
    let mut nan = false;
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for i in 0..16 {
            nan |= chunk[i].is_nan();
            parts[i] = if chunk[i] > parts[i] { chunk[i] } else { parts[i] };
        }
    }
    for &value in chunks.remainder() {
        nan |= value.is_nan();
        parts[0] = if value > parts[0] { value } else { parts[0] };
    }
    if nan { f32::NAN } else { parts.into_iter().fold(f32::NEG_INFINITY, f32::max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_are_accurate() {
        for i in -8_700..8_800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "exp({x}) = {} not {exact}", exp(x));
            assert!((f64::from(tanh(x / 8.0)) - f64::from(x / 8.0).tanh()).abs() < 2e-7);
        }
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!((exp(0.0), tanh(100.0), tanh(-100.0)), (1.0, 1.0, -1.0));
    }

    #[test]
    fn weighted_rows_are_added_in_order() {
        for (count, len) in [(0, 3), (1, 16), (7, 5), (8, 33), (21, 64)] {
            let stride = len + 2;
            let value = |i: usize| (i * 7919 % 101) as f32 / 13.0 - 3.0;
            let (rows, weights): (Vec<f32>, Vec<f32>) =
                ((0..count * stride).map(value).collect(), (0..count).map(|i| value(i + 5)).collect());
            let mut out: Vec<f32> = (0..len).map(|i| value(i + 11)).collect();
            let mut expected = out.clone();
            for (row, weight) in rows.chunks(stride).zip(&weights) {
                expected.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
            }
            add_weighted(&mut out, &weights, &rows, stride);
            assert_eq!(out, expected, "{count} rows of {len}");
        }
    }

    #[test]
    fn reductions_see_every_element() {
        let values: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(sum(values.iter().copied()), 666.0);
        assert_eq!(dot(&values, &[2.0; 37]), 1332.0);
        assert_eq!(max(&values), 36.0);
        for place in [0, 20, 36] {
            let mut spoiled = values.clone();
            spoiled[place] = f32::NAN;
            assert!(max(&spoiled).is_nan());
        }
    }
}
