//! Fewer points than steps, where a page would be too large.

use serde::Serialize;

use super::Curves;

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

/// Rows kept of a stretch, at most.
const KEPT: usize = 6;

#[cfg(test)]
mod tests {
    use super::super::curves::tests::step;
    use super::*;

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
