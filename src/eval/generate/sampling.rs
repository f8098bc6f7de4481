//! The choice of the next token.

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0: always the likeliest token.
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// Only this many of the likeliest tokens.
    pub top_k: Option<usize>,
    pub seed: u64,
}

impl Sampling {
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, top_k: None, seed: 0 };
}

/// The next token by `logits` `[V]`, of which NaN is never taken; `draw` supplies the randomness.
pub fn choose(logits: &[f32], sampling: Sampling, draw: u64) -> u32 {
    let Sampling { temperature, top_p, top_k, .. } = sampling;
    let best = likeliest(logits);
    if temperature <= 0.0 || logits.is_empty() {
        return best as u32;
    }
    let top = logits[best];
    // A vocabulary is long: what cannot be drawn is left out before anything is sorted.
    let mut kept: Vec<(u32, f64)> = (0u32..)
        .zip(logits)
        .filter(|(_, logit)| !logit.is_nan())
        .map(|(token, logit)| (token, (f64::from(logit - top) / temperature).exp()))
        .collect();
    let by_weight = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if let Some(k) = top_k.filter(|k| *k < kept.len()) {
        kept.select_nth_unstable_by(k.max(1) - 1, by_weight);
        kept.truncate(k.max(1));
    }
    let mut total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    if top_p < 1.0 {
        // Tokens below an even share of what the nucleus leaves out do not add up to that much: none of them is in it.
        let least = (1.0 - top_p) * total / kept.len() as f64;
        kept.retain(|(token, weight)| *weight >= least || *token as usize == best);
        kept.sort_unstable_by(by_weight);
        let (mut sum, mut nucleus) = (0.0, 0);
        while nucleus < kept.len() && (nucleus == 0 || sum < top_p * total) {
            sum += kept[nucleus].1;
            nucleus += 1;
        }
        kept.truncate(nucleus);
        total = sum;
    } else if top_k.is_some() {
        // `select_nth` leaves no order: the same draw must always give the same token.
        kept.sort_unstable_by(by_weight);
    }
    // 53 bits: a uniform number in [0, 1).
    let mut left = (draw >> 11) as f64 / (1u64 << 53) as f64 * total;
    for (token, weight) in &kept {
        left -= weight;
        if left < 0.0 {
            return *token;
        }
    }
    kept.last().map_or(best as u32, |(token, _)| *token)
}

/// The first of the largest; 0 where all are NaN.
fn likeliest(logits: &[f32]) -> usize {
    const LANES: usize = 16;
    const CHUNK: usize = 64 * LANES;
    let (mut highest, mut chunk_of_it) = (f32::NEG_INFINITY, 0);
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        // Side by side, so that it vectorises; comparisons with NaN are false.
        let mut parts = [f32::NEG_INFINITY; LANES];
        for values in chunk.chunks(LANES) {
            for (part, logit) in parts.iter_mut().zip(values) {
                *part = if *logit > *part { *logit } else { *part };
            }
        }
        let of_chunk = parts.into_iter().fold(f32::NEG_INFINITY, f32::max);
        if of_chunk > highest {
            (highest, chunk_of_it) = (of_chunk, index * CHUNK);
        }
    }
    let place = logits.iter().skip(chunk_of_it).position(|logit| *logit == highest);
    place.map_or(0, |place| chunk_of_it + place)
}

#[cfg(test)]
mod tests {
    use trainer_backends::dropout::mix64;

    use super::*;

    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for i in 0..20_000 {
            counts[choose(logits, sampling, mix64(i)) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    /// Standard deviation of a share: at most 0.0035; five of them.
    fn assert_shares(sampling: Sampling, logits: &[f32], expected: &[f64]) {
        let shares = shares(sampling, logits);
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < 0.018 && (*expected > 0.0 || *share == 0.0), "{sampling:?} {shares:?}");
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        assert_eq!(choose(&[0.0, 3.0, 3.0, -1.0], Sampling::GREEDY, 7), 1);
        assert_eq!(choose(&[f32::NAN, -2.0], Sampling::GREEDY, 7), 1);
        assert_eq!(choose(&[f32::NAN, f32::NAN], Sampling::GREEDY, 7), 0);
        assert_eq!(choose(&[f32::NEG_INFINITY, f32::NAN], Sampling::GREEDY, 7), 0);
        for (place, len) in [(0, 5), (1023, 1024), (1024, 3000), (2999, 3000), (50_000, 51_200)] {
            let mut logits: Vec<f32> = (0..len).map(|i| (i % 7) as f32).collect();
            (logits[place], logits[len - 1]) = (9.0, 9.0);
            assert_eq!(choose(&logits, Sampling::GREEDY, 7) as usize, place);
        }
    }

    #[test]
    fn sampling_follows_the_distribution() {
        // Probabilities 0.125, 0.5, 0.125, 0.25.
        let logits = [0.0, 2f32.ln() * 2.0, 0.0, 2f32.ln()];
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: None, seed: 0 };
        assert_shares(sampling, &logits, &[0.125, 0.5, 0.125, 0.25]);
        assert_shares(Sampling { top_p: 0.7, ..sampling }, &logits, &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        assert_shares(Sampling { top_p: 0.8, ..sampling }, &logits, &[1.0 / 7.0, 4.0 / 7.0, 0.0, 2.0 / 7.0]);
        assert_shares(Sampling { top_k: Some(1), ..sampling }, &logits, &[0.0, 1.0, 0.0, 0.0]);
        assert_shares(Sampling { top_k: Some(2), ..sampling }, &logits, &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        assert_shares(Sampling { top_k: Some(2), top_p: 0.5, ..sampling }, &logits, &[0.0, 1.0, 0.0, 0.0]);
        // Half the temperature squares the odds: 1 : 16 : 1 : 4.
        let odds = [1.0, 16.0, 1.0, 4.0].map(|odds| odds / 22.0);
        assert_shares(Sampling { temperature: 0.5, ..sampling }, &logits, &odds);
    }

    #[test]
    fn the_nucleus_is_that_of_all_tokens_in_order() {
        // Against the definition: sort all, take the shortest prefix that has the probability.
        for case in 0..200u64 {
            let random = |i: u64| (mix64(mix64(case) ^ i) >> 40) as f32 / (1 << 24) as f32;
            let logits: Vec<f32> = (0..50).map(|i| random(i) * 8.0).collect();
            let top_p = f64::from(random(99)).clamp(0.01, 0.99);
            let weights: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut order: Vec<usize> = (0..50).collect();
            order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
            let mut sum = 0.0;
            let nucleus: Vec<usize> = order
                .into_iter()
                .take_while(|i| {
                    let before = sum;
                    sum += weights[*i] / total;
                    before < top_p
                })
                .collect();
            let sampling = Sampling { temperature: 1.0, top_p, top_k: None, seed: 0 };
            for draw in 0..100 {
                let token = choose(&logits, sampling, mix64(draw)) as usize;
                assert!(nucleus.contains(&token), "{token} is not among {nucleus:?} at {top_p}");
            }
            // The largest draw takes the nucleus' last token.
            assert_eq!(choose(&logits, sampling, u64::MAX) as usize, nucleus[nucleus.len() - 1]);
        }
    }
}
