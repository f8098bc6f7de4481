//! Whether a kernel is used, and how.

use std::fmt::Display;
use std::str::FromStr;

use crate::cuda::KernelFamily;

/// Whether products run on a kernel where they can, and by which blueprint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting<B> {
    Off,
    /// The blueprint is chosen by the sizes, unless the kernels are refused.
    #[default]
    Chosen,
    Always(B),
}

impl<B> Setting<B> {
    /// Of a kernel of `family`.
    pub(super) fn blueprint(self, family: KernelFamily, chosen: impl FnOnce() -> B) -> Option<B> {
        match self {
            Self::Off => None,
            Self::Chosen => (!family.is_refused()).then(chosen),
            Self::Always(blueprint) => Some(blueprint),
        }
    }
}

impl<B: FromStr<Err: Display>> FromStr for Setting<B> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Chosen),
            text => text.parse().map(Self::Always).map_err(|reason| format!("{reason}; or off, or auto")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::blueprint::Ampere;
    use super::*;

    #[test]
    fn settings() {
        assert_eq!("off".parse(), Ok(Setting::<Ampere>::Off));
        assert_eq!("auto".parse(), Ok(Setting::<Ampere>::Chosen));
        let blueprint = Ampere { tile_m: 256, tile_n: 128, stages: 3, group_m: 8 };
        assert_eq!("256x128x3x8".parse(), Ok(Setting::Always(blueprint)));
        let reason = "on".parse::<Setting<Ampere>>().unwrap_err();
        assert!(reason.contains("expected rows x columns") && reason.ends_with("; or off, or auto"), "{reason}");
    }
}
