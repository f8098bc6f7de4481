//! Kernels that this device does not run as they are written, for tests of what a program does then.

use std::sync::OnceLock;

/// What becomes of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoiled {
    /// Nothing is written, and nothing said.
    Idle,
    /// CUDA_ERROR_ILLEGAL_INSTRUCTION.
    Refused,
    /// It never ends.
    Endless,
}

/// Of a kernel, by `CUDA_EMULATOR_SPOIL`: `KIND:PART` of kernels whose name or text has PART in it, several with commas between.
pub fn spoiled(name: &str, text: &str) -> Option<Spoiled> {
    static ALL: OnceLock<Vec<(Spoiled, String)>> = OnceLock::new();
    let all = ALL.get_or_init(|| parse(&std::env::var("CUDA_EMULATOR_SPOIL").unwrap_or_default()));
    all.iter().find(|(_, part)| name.contains(part.as_str()) || text.contains(part.as_str())).map(|(kind, _)| *kind)
}

fn parse(value: &str) -> Vec<(Spoiled, String)> {
    let one = |entry: &str| {
        let (kind, part) = entry.split_once(':')?;
        let kind = match kind {
            "idle" => Spoiled::Idle,
            "refused" => Spoiled::Refused,
            "endless" => Spoiled::Endless,
            _ => return None,
        };
        Some((kind, part.to_owned()))
    };
    value.split(',').filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(parse(""), []);
        let expected = [(Spoiled::Idle, "gemm".to_owned()), (Spoiled::Endless, "attention".to_owned())];
        assert_eq!(parse("idle:gemm,other:x,endless:attention"), expected);
    }
}
