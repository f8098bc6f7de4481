//! Values that clap parses, with an error that says what was expected.

use bytesize::ByteSize;

use crate::config::MAX_STEPS;

/// As the largest size of a configuration: products of two or three such numbers do not overflow.
const LARGEST: usize = 1 << 24;

pub(super) fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=LARGEST).contains(n));
    number.ok_or_else(|| format!("expected a whole number from 1 to {LARGEST}"))
}

pub(super) fn from_zero(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (0..=LARGEST).contains(n));
    number.ok_or_else(|| format!("expected a whole number from 0 to {LARGEST}"))
}

/// Of seeds and counts.
pub(super) fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// Of optimizer steps, as train.steps has them.
pub(super) fn steps(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|n| (1..=MAX_STEPS).contains(n));
    number.ok_or_else(|| format!("expected a whole number from 1 to {MAX_STEPS}"))
}

/// 5GB is 5 * 10^9 bytes and 5GiB is 5 * 2^30, as in transformers' `max_shard_size`.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
    let size = text.trim().parse().map(|size: ByteSize| size.as_u64()).ok().filter(|bytes| *bytes > 0);
    size.ok_or_else(|| "expected a size above 0, such as 5GB, 500MB or 2GiB".into())
}

pub(super) fn fraction(text: &str) -> Result<f64, String> {
    number(text, "a number of at least 0 and less than 1", |x| (0.0..1.0).contains(&x))
}

pub(super) fn hours(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and at most 100000", |x| x > 0.0 && x <= 1e5)
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and at most 1000000", |x| x > 0.0 && x <= 1e6)
}

pub(super) fn above_zero(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "expected a number above 0".into())
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    above_zero(text).ok().filter(|value| *value <= 1.0).ok_or_else(|| "expected a number above 0, at most 1".into())
}

pub(super) fn temperature(text: &str) -> Result<f64, String> {
    number(text, "a number of at least 0", |x| x >= 0.0)
}

pub(super) fn top_p(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
}

fn number(text: &str, expected: &str, allowed: impl Fn(f64) -> bool) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite() && allowed(*x)).ok_or_else(|| format!("expected {expected}"))
}
