//! Fewer points than steps, where a page would be too large.

use serde::Serialize;

use super::{Curves, SampleRecord};

/// How many steps there are, and how many are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Thinned {
    pub of: usize,
    pub kept: usize,
}

/// Of each stretch of steps keeps those with the lowest and the highest loss and gradient norm, one without a finite loss,
/// and the first; the last step of all is kept. Every extreme of these curves stays where it is, so that a spike is seen.
pub(super) fn thin(curves: &mut Curves, limit: usize) -> Option<Thinned> {
    let of = curves.step.len();
    if of <= limit {
        return None;
    }
    let stretch = of.div_ceil((limit / KEPT).max(1));
    let mut rows = Vec::with_capacity(limit);
    for start in (0..of).step_by(stretch) {
        let stretch = start..(start + stretch).min(of);
        let mut kept = vec![start];
        for column in [&curves.loss, &curves.grad_norm] {
            let finite = || stretch.clone().filter(|row| column[*row].is_finite());
            kept.extend(finite().min_by(|a, b| column[*a].total_cmp(&column[*b])));
            kept.extend(finite().max_by(|a, b| column[*a].total_cmp(&column[*b])));
        }
        kept.extend(stretch.clone().find(|row| !curves.loss[*row].is_finite() || curves.skipped[*row]));
        kept.sort_unstable();
        kept.dedup();
        rows.extend(kept);
    }
    if rows.last() != Some(&(of - 1)) {
        rows.push(of - 1);
    }
    curves.keep(&rows);
    Some(Thinned { of, kept: rows.len() })
}

/// Samples of at most `limit` steps, evenly spread, the first and the last among them.
pub(super) fn samples(samples: Vec<SampleRecord>, limit: usize) -> Vec<SampleRecord> {
    let mut steps: Vec<u64> = samples.iter().map(|sample| sample.step).collect();
    steps.sort_unstable();
    steps.dedup();
    if steps.len() <= limit {
        return samples;
    }
    let kept: Vec<u64> = (0..limit).map(|i| steps[i * (steps.len() - 1) / (limit - 1).max(1)]).collect();
    samples.into_iter().filter(|sample| kept.binary_search(&sample.step).is_ok()).collect()
}

/// Rows kept of a stretch, at most.
const KEPT: usize = 6;

#[cfg(test)]
mod tests {
    use super::super::curves::tests::step;
    use super::*;

    #[test]
    fn the_first_and_the_last_samples_stay() {
        let sample = |i: u64| SampleRecord { step: 10 * (i / 2), prompt: String::new(), text: i.to_string() };
        let all: Vec<SampleRecord> = (0..2000).map(sample).collect();
        assert_eq!(samples(all.clone(), 1000), all);
        let kept = samples(all.clone(), 7);
        assert_eq!((kept.len(), &kept[..2], &kept[12..]), (14, &all[..2], &all[1998..]));
    }

    #[test]
    fn spikes_and_gaps_stay() {
        let records: Vec<_> = (1..=10_000u64)
            .map(|i| {
                let loss = match i {
                    4_321 => 99.0,
                    5_678 => f64::NAN,
                    7_890 => -1.0,
                    i => 1.0 + (i % 7) as f64,
                };
                step(i, loss)
            })
            .collect();
        let mut curves = Curves::new(&records);
        assert_eq!(thin(&mut curves, 10_000), None);
        let thinned = thin(&mut curves, 600).unwrap();
        assert_eq!((thinned.of, thinned.kept), (10_000, curves.step.len()));
        assert!((200..=601).contains(&thinned.kept), "{thinned:?}");
        assert!(curves.step.is_sorted_by(|a, b| a < b));
        assert_eq!((curves.step[0], *curves.step.last().unwrap()), (1, 10_000));
        for (step, loss) in [(4_321, Some(99.0)), (5_678, None), (7_890, Some(-1.0))] {
            let row = curves.step.binary_search(&step).unwrap();
            assert_eq!(Some(curves.loss[row]).filter(|loss| loss.is_finite()), loss);
            assert_eq!(curves.tokens[row], 100 * step);
        }
    }
}
