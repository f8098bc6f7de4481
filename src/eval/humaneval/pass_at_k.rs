//! pass@k: the chance that one of k samples passes.

/// Values of k that are told where there are as many samples of every problem.
pub const KS: [u64; 3] = [1, 10, 100];

/// The unbiased estimator from `n` samples of which `c` passed: 1 - C(n-c, k) / C(n, k), as a product that does not overflow
/// (Chen et al. 2021, section 2.1 and figure 3). `k` is at most `n`.
pub fn estimate(n: u64, c: u64, k: u64) -> f64 {
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// (k, pass@k) over problems of which (samples, passed) are given: the mean of their estimates, for each of [`KS`] that no problem
/// has fewer samples than.
pub fn pass_at_k(problems: &[(u64, u64)]) -> Vec<(u64, f64)> {
    let fewest = problems.iter().map(|(n, _)| *n).min().unwrap_or(0);
    let mean = |k| problems.iter().map(|(n, c)| estimate(*n, *c, k)).sum::<f64>() / problems.len() as f64;
    KS.into_iter().filter(|k| *k <= fewest).map(|k| (k, mean(k))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: the share of the subsets of k samples that hold a passed one.
    fn counted(n: u32, c: u32, k: u32) -> f64 {
        let subsets: Vec<u32> = (0..1_u32 << n).filter(|subset| subset.count_ones() == k).collect();
        let passed = subsets.iter().filter(|subset| *subset & ((1 << c) - 1) != 0).count();
        passed as f64 / subsets.len() as f64
    }

    #[test]
    fn the_estimator_counts_subsets() {
        for n in 1..=9 {
            for c in 0..=n {
                for k in 1..=n {
                    let estimated = estimate(n.into(), c.into(), k.into());
                    // A product of at most nine factors, each rounded once.
                    assert!((estimated - counted(n, c, k)).abs() < 1e-14, "{n} {c} {k}");
                }
            }
        }
    }

    #[test]
    fn only_what_every_problem_has_samples_for() {
        assert_eq!(pass_at_k(&[]), []);
        assert_eq!(pass_at_k(&[(1, 1), (1, 0)]), [(1, 0.5)]);
        assert_eq!(pass_at_k(&[(10, 0), (200, 200)]), [(1, 0.5), (10, 0.5)]);
        let all = pass_at_k(&[(200, 1), (100, 100)]);
        assert_eq!(all.iter().map(|(k, _)| *k).collect::<Vec<_>>(), KS);
        // One of 200 passed: a set of k holds it with probability k / 200.
        for (k, value) in all {
            assert!((value - (k as f64 / 200.0 + 1.0) / 2.0).abs() < 1e-12, "{k} {value}");
        }
    }
}
