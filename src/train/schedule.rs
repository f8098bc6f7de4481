//! The learning rate of each step.

use crate::config::Config;

/// Linear warm-up to the peak over `warmup_steps`, then linear decay that reaches 0 at the last step ("Textbooks Are All
/// You Need", section 2.3). `step` counts from 1.
pub fn learning_rate(step: u64, config: &Config) -> f64 {
    let (peak, warmup, steps) = (config.optimizer.lr, config.optimizer.warmup_steps, config.train.steps);
    if step <= warmup {
        return peak * step as f64 / warmup as f64;
    }
    peak * steps.saturating_sub(step) as f64 / (steps - warmup) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_peaks_and_ends_at_zero() {
        let sets = ["train.steps=100", "optimizer.warmup_steps=10", "optimizer.lr=0.5"].map(String::from);
        let config = Config::resolve(Some("demo"), None, &sets).unwrap();
        let rate = |step| learning_rate(step, &config);
        assert_eq!((rate(1), rate(10), rate(55), rate(100), rate(101)), (0.05, 0.5, 0.25, 0.0, 0.0));
        let no_warmup = Config::resolve(Some("demo"), None, &["optimizer.warmup_steps=0".into()]).unwrap();
        assert!(learning_rate(1, &no_warmup) < no_warmup.optimizer.lr);
        // A run that is shorter than its warm-up only warms up.
        let short = ["train.steps=5", "optimizer.warmup_steps=10", "optimizer.lr=0.5"].map(String::from);
        let short = Config::resolve(Some("demo"), None, &short).unwrap();
        assert_eq!(learning_rate(5, &short), 0.25);
    }
}
