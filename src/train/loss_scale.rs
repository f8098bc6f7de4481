//! Dynamic loss scaling for fp16, with DeepSpeed's rules (its DynamicLossScaler with hysteresis 2, factor 2).

use serde::{Deserialize, Serialize};

/// Clean steps after which the scale doubles.
const WINDOW: u64 = 1000;
/// Overflows in a row of growth periods that are forgiven before the scale is halved: one less than this.
const HYSTERESIS: u32 = 2;
/// Below this the gradients are not small, they are broken.
const FLOOR: f64 = 1.0;

/// What the loss is multiplied with before backward, so that small gradients survive fp16.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    pub scale: f64,
    /// Steps without overflow since the last overflow or growth.
    clean_steps: u64,
    /// Overflows that are left before one halves the scale.
    hysteresis: u32,
}

/// What an overflow did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overflow {
    /// Forgiven: the scale stays.
    Forgiven,
    Halved,
    /// The scale was at its floor already: training cannot go on.
    AtFloor,
}

impl LossScale {
    pub fn new(scale: f64) -> Self {
        Self { scale, clean_steps: 0, hysteresis: HYSTERESIS }
    }

    /// Whether this is a state that these rules can come to: one that was read from a file may be anything.
    pub fn is_sound(&self) -> bool {
        self.scale.is_finite()
            && self.scale >= FLOOR
            && self.clean_steps < WINDOW
            && (1..=HYSTERESIS).contains(&self.hysteresis)
    }

    /// To be called after a step whose gradients were finite.
    pub fn clean(&mut self) {
        self.clean_steps += 1;
        if self.clean_steps == WINDOW {
            self.scale *= 2.0;
            self.clean_steps = 0;
            self.hysteresis = HYSTERESIS;
        }
    }

    /// To be called after a step whose gradients were not finite, and which is skipped.
    pub fn overflowed(&mut self) -> Overflow {
        self.clean_steps = 0;
        if self.hysteresis > 1 {
            self.hysteresis -= 1;
            return Overflow::Forgiven;
        }
        if self.scale <= FLOOR {
            return Overflow::AtFloor;
        }
        self.scale = (self.scale / 2.0).max(FLOOR);
        Overflow::Halved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_deepspeed() {
        let mut scale = LossScale::new(65_536.0);
        assert_eq!(scale.overflowed(), Overflow::Forgiven);
        assert_eq!(scale.scale, 65_536.0);
        // The hysteresis is used up: each further overflow halves.
        assert_eq!((scale.overflowed(), scale.scale), (Overflow::Halved, 32_768.0));
        assert_eq!((scale.overflowed(), scale.scale), (Overflow::Halved, 16_384.0));
        for _ in 0..999 {
            scale.clean();
        }
        assert_eq!(scale.scale, 16_384.0);
        scale.clean();
        assert_eq!(scale.scale, 32_768.0);
        // Growth restores the hysteresis.
        assert_eq!((scale.overflowed(), scale.scale), (Overflow::Forgiven, 32_768.0));
        // An overflow starts the window again.
        for _ in 0..999 {
            scale.clean();
        }
        assert_eq!(scale.overflowed(), Overflow::Halved);
        for _ in 0..999 {
            scale.clean();
        }
        assert_eq!(scale.scale, 16_384.0);
    }

    #[test]
    fn the_floor_is_an_error() {
        let mut scale = LossScale::new(1.5);
        assert_eq!(scale.overflowed(), Overflow::Forgiven);
        assert_eq!((scale.overflowed(), scale.scale), (Overflow::Halved, 1.0));
        assert_eq!(scale.overflowed(), Overflow::AtFloor);
    }
}
