//! Loads, stores, atomics and asynchronous copies.

use super::{Draft, Lowerer, Ref, Result, count, unknown};
use crate::machine::address::Space;
use crate::ops::compare::NONE;
use crate::ops::{self, async_copy, atomic, memory, moves};
use crate::parse::type_bytes;
use crate::syntax::Operand;

/// Memory order, scope, caching and eviction: nothing of it changes what a value is here.
fn is_hint(part: &str) -> bool {
    const HINTS: [&str; 22] = [
        "weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "nc", "mmio",
        "ca", "cg", "cs", "lu", "cv", "wb", "wt", "noftz", "unified", "sc",
    ];
    HINTS.contains(&part) || part.starts_with("L1::") || part.starts_with("L2::") || part.starts_with("level::")
}

impl Lowerer {
    /// Base, offset and, where a variable is named, its space.
    pub(super) fn address(&mut self, operand: &Operand) -> Result<(Ref, i64, Option<Space>)> {
        let Operand::Address(base, offset) = operand else { return Err(format!("operand {operand:?} is no address")) };
        match &**base {
            Operand::Name(name, _) => {
                let symbol = self.named(name)?;
                Ok((self.constant(symbol.address, true), *offset, Some(symbol.space)))
            }
            base if self.is_wide(base) == Some(false) => {
                let (to, a) = (self.register(true), self.word(base)?);
                let draft = self.draft(ops::find("cvt.u64.u32").expect("a row of the table").exec);
                self.push(Draft { d: Ref::Def(to), a, ..draft });
                Ok((Ref::Use(to), *offset, None))
            }
            base => Ok((self.double(base)?, *offset, None)),
        }
    }

    /// A vector's parts, or the operand itself.
    fn parts(operand: &Operand) -> &[Operand] {
        if let Operand::Vector(parts) = operand { parts } else { std::slice::from_ref(operand) }
    }

    pub(super) fn load_or_store(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let loads = parts[0] != "st";
        let kind = parts[parts.len() - 1];
        let (mut space, mut vector) = (Space::Generic, 1);
        for part in &parts[1..parts.len() - 1] {
            match *part {
                "v2" => vector = 2,
                "v4" => vector = 4,
                "v8" => vector = 8,
                part if is_hint(part) => {}
                part => space = Space::named(part).ok_or(format!("unknown modifier {part}"))?,
            }
        }
        // A third operand is a cache policy.
        count(operands, 2..=3)?;
        let (value, address) = if loads { (&operands[0], &operands[1]) } else { (&operands[1], &operands[0]) };
        let values = Self::parts(value);
        if values.len() != vector {
            return Err(format!("{} registers for {vector} values", values.len()));
        }
        let wide = values.iter().find_map(|part| self.is_wide(part)).unwrap_or(type_bytes(kind) == Some(8));
        let (a, imm, named) = self.address(address)?;
        if space == Space::Generic {
            space = named.unwrap_or(space);
        }
        let mut list = Vec::new();
        for part in values {
            list.push(match part {
                Operand::Sink => Ref::Raw(NONE),
                part if loads => self.target(part, wide)?,
                part => self.source(part, wide)?,
            });
        }
        let exec = if loads { memory::loading(space, kind, wide) } else { memory::storing(space, kind, wide) };
        let draft = self.draft(exec.ok_or("no such type for such registers")?);
        self.push(Draft { a, imm, list, ..draft });
        Ok(())
    }

    /// atom d, [a], b{, c} and red [a], b.
    pub(super) fn atomic(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let mut space = Space::Generic;
        let mut names = Vec::new();
        for part in &parts[1..] {
            match *part {
                part if is_hint(part) => {}
                part => match Space::named(part) {
                    Some(named) => space = named,
                    None => names.push(part),
                },
            }
        }
        let [operation, kind] = names[..] else { return unknown() };
        let wide = type_bytes(kind).ok_or("unknown type")? == 8;
        let (d, rest) = match parts[0] {
            "atom" if operands[0] != Operand::Sink => (self.target(&operands[0], wide)?, &operands[1..]),
            "atom" => (Ref::Raw(NONE), &operands[1..]),
            _ => (Ref::Raw(NONE), operands),
        };
        let values = if operation == "cas" { 2 } else { 1 };
        count(rest, 1 + values..=2 + values)?;
        let (a, imm, named) = self.address(&rest[0])?;
        if space == Space::Generic {
            space = named.unwrap_or(space);
        }
        let mut list = vec![d];
        for value in &rest[1..=values] {
            list.push(self.source(value, wide)?);
        }
        let Some((exec, aux)) = atomic::find(&format!("{operation}.{kind}"), space) else { return unknown() };
        let draft = self.draft(exec);
        self.push(Draft { a, imm, list, aux, ..draft });
        Ok(())
    }

    pub(super) fn async_copy(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let draft = self.draft(moves::nothing);
        let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.starts_with("L2::")).collect();
        match parts[1..] {
            ["async", "commit_group"] => self.push(Draft { exec: async_copy::commit, ..draft }),
            ["async", "wait_all"] => self.push(Draft { exec: async_copy::wait_all, ..draft }),
            ["async", "wait_group"] => {
                let [Operand::Immediate(groups)] = operands else { return Err("expected a number".to_owned()) };
                self.push(Draft { exec: async_copy::wait, imm: *groups as i64, ..draft });
            }
            ["async", "mbarrier", "arrive", ref noinc @ .., "shared" | "shared::cta", "b64"]
                if matches!(*noinc, [] | ["noinc"]) =>
            {
                count(operands, 1..=1)?;
                let (a, imm, _) = self.address(&operands[0])?;
                self.push(Draft { exec: async_copy::arrive, a, imm, aux: noinc.len() as u32, ..draft });
            }
            ["async", "ca" | "cg", "shared" | "shared::cta", "global"] => {
                count(operands, 3..=5)?;
                let Operand::Immediate(bytes @ (4 | 8 | 16)) = operands[2] else {
                    return Err("expected 4, 8 or 16 bytes".to_owned());
                };
                let (a, imm, _) = self.address(&operands[0])?;
                let (b, offset, _) = self.address(&operands[1])?;
                let list = match operands.get(3) {
                    Some(size) if self.is_wide(size) != Some(true) => vec![self.word(size)?],
                    _ => Vec::new(),
                };
                let c = Ref::Raw(i32::try_from(offset).map_err(|_| "an offset beyond 32 bits")? as u32);
                self.push(Draft { exec: async_copy::copy, a, b, c, imm, list, aux: bytes as u32, ..draft });
            }
            _ => return unknown(),
        }
        Ok(())
    }
}
