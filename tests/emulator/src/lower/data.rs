//! Arithmetic, moves, conversions and comparisons.

use super::{Draft, Lowerer, Ref, Result, count, unknown};
use crate::machine::address::Space;
use crate::ops::compare::{self, COMBINE, LOGIC, NONE};
use crate::ops::{self, Entry, convert, moves};
use crate::parse::type_bytes;
use crate::syntax::Operand;

impl Lowerer {
    /// A row of the tables, with .ftz and .sat of f32 as instructions of their own around it.
    pub(super) fn arithmetic(&mut self, mnemonic: &str, operands: &[Operand]) -> Result<()> {
        if let Some(row) = ops::find(mnemonic) {
            let d = self.row_target(row, operands)?;
            return self.row(row, d, operands, false);
        }
        if !mnemonic.ends_with(".f32") {
            return unknown();
        }
        let (flushes, saturates) = (mnemonic.contains(".ftz"), mnemonic.contains(".sat"));
        let bare = mnemonic.replace(".ftz", "").replace(".sat", "");
        let Some(row) = ops::find(&bare).filter(|_| bare != mnemonic) else { return unknown() };
        let to = self.row_target(row, operands)?;
        let through = self.register(false);
        self.row(row, Ref::Def(through), operands, flushes)?;
        let finish = if saturates { "saturate.f32" } else { "flush.f32" };
        let draft = self.draft(ops::find(finish).expect("a row of the table").exec);
        self.push(Draft { d: to, a: Ref::Use(through), ..draft });
        Ok(())
    }

    fn row_target(&mut self, row: Entry, operands: &[Operand]) -> Result<Ref> {
        count(operands, row.wide.len()..=row.wide.len())?;
        self.target(&operands[0], row.wide[0])
    }

    fn row(&mut self, row: Entry, d: Ref, operands: &[Operand], flushes: bool) -> Result<()> {
        let mut sources = Vec::new();
        for (operand, &wide) in operands.iter().zip(row.wide).skip(1) {
            let source = self.source(operand, wide)?;
            sources.push(if flushes { self.flushed(source) } else { source });
        }
        let at = |at: usize| sources.get(at).copied().unwrap_or(Ref::None);
        let list = sources.get(3..).unwrap_or_default().to_vec();
        let draft = self.draft(row.exec);
        self.push(Draft { d, a: at(0), b: at(1), c: at(2), list, ..draft });
        Ok(())
    }

    /// `source` with subnormals flushed to zero.
    fn flushed(&mut self, source: Ref) -> Ref {
        let to = self.register(false);
        let draft = self.draft(ops::find("flush.f32").expect("a row of the table").exec);
        self.push(Draft { d: Ref::Def(to), a: source, ..draft });
        Ref::Use(to)
    }

    pub(super) fn logic(&mut self, name: &str, operands: &[Operand]) -> Result<()> {
        count(operands, 2..=3)?;
        let d = self.predicate_target(&operands[0])?;
        let a = self.predicate(&operands[1])?;
        let b = operands.get(2).map_or(Ok(Ref::Raw(0)), |operand| self.predicate(operand))?;
        let aux = LOGIC.iter().position(|known| *known == name).expect("a name of the list") as u32;
        let draft = self.draft(compare::logic);
        self.push(Draft { d, a, b, aux, ..draft });
        Ok(())
    }

    pub(super) fn mov(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        count(operands, 2..=2)?;
        let [_, kind] = parts else { return unknown() };
        if *kind == "pred" {
            return self.logic("mov", operands);
        }
        let bytes = type_bytes(kind).ok_or("unknown type")?;
        let wide = bytes == 8;
        if bytes > 8 {
            return unknown();
        }
        let draft = match (&operands[0], &operands[1]) {
            (to, Operand::Vector(from)) => {
                let list: Result<Vec<Ref>> = from.iter().map(|part| self.word(part)).collect();
                let (d, aux) = (self.target(to, wide)?, (8 * bytes / from.len()) as u32);
                Draft { d, list: list?, aux, ..self.draft(moves::packing(wide)) }
            }
            (Operand::Vector(to), from) => {
                let mut list = Vec::new();
                for part in to {
                    list.push(if *part == Operand::Sink { Ref::Raw(NONE) } else { self.target(part, false)? });
                }
                let (a, aux) = (self.source(from, wide)?, (8 * bytes / to.len()) as u32);
                Draft { a, list, aux, ..self.draft(moves::unpacking(wide)) }
            }
            (to, Operand::Name(name, 0)) if moves::SPECIAL.contains(&name.as_str()) => {
                let aux = moves::SPECIAL.iter().position(|known| known == name).unwrap_or(0) as u32;
                if moves::is_wide(name) != wide {
                    return Err(format!("{name} has another size"));
                }
                Draft { d: self.target(to, wide)?, aux, ..self.draft(moves::special) }
            }
            (to, from) => {
                let (d, a) = (self.target(to, wide)?, self.source(from, wide)?);
                Draft { d, a, ..self.draft(moves::copying(wide)) }
            }
        };
        self.push(draft);
        Ok(())
    }

    /// Generic addresses are those of the space, moved to its window.
    pub(super) fn cvta(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        count(operands, 2..=2)?;
        let (row, space) = match parts {
            ["cvta", "to", space, "u64"] => ("sub.u64", space),
            ["cvta", space, "u64"] => ("add.u64", space),
            _ => return unknown(),
        };
        let window = Space::named(space).ok_or("unknown space")?.window();
        let (d, a, b) = (self.target(&operands[0], true)?, self.double(&operands[1])?, self.constant(window, true));
        let draft = self.draft(ops::find(row).expect("a row of the table").exec);
        self.push(Draft { d, a, b, ..draft });
        Ok(())
    }

    pub(super) fn cvt(&mut self, mnemonic: &str, operands: &[Operand]) -> Result<()> {
        let fits = |row: &Entry, lowerer: &Self| {
            operands.iter().zip(row.wide).all(|(operand, wide)| lowerer.is_wide(operand).is_none_or(|is| is == *wide))
        };
        if let Some(row) = convert::find(mnemonic).filter(|row| fits(row, self)) {
            let d = self.row_target(row, operands)?;
            return self.row(row, d, operands, false);
        }
        count(operands, 2..=2)?;
        let from = mnemonic.rsplit('.').next().unwrap_or("");
        let wide_to = self.is_wide(&operands[0]).ok_or("the target is no register")?;
        let wide_from = self.is_wide(&operands[1]).unwrap_or(type_bytes(from) == Some(8));
        let Some((exec, aux)) = convert::general(mnemonic, wide_to, wide_from) else { return unknown() };
        let (d, a) = (self.target(&operands[0], wide_to)?, self.source(&operands[1], wide_from)?);
        let draft = self.draft(exec);
        self.push(Draft { d, a, aux, ..draft });
        Ok(())
    }

    /// setp.lt{.and}{.ftz}.f32 p{|q}, a, b{, c}
    pub(super) fn setp(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let (d, list) = match &operands[0] {
            Operand::Pair(p, q) => (self.predicate_target(p)?, vec![self.predicate_target(q)?]),
            p => (self.predicate_target(p)?, Vec::new()),
        };
        let kind = parts[parts.len() - 1];
        self.comparison(&parts[1..parts.len() - 1], kind, d, list, &operands[1..])
    }

    fn comparison(&mut self, parts: &[&str], kind: &str, d: Ref, list: Vec<Ref>, operands: &[Operand]) -> Result<()> {
        let (mut combine, mut flushes) = (0, false);
        for part in &parts[1..] {
            match *part {
                "ftz" => flushes = true,
                part => combine = COMBINE.iter().position(|known| *known == part).ok_or("unknown modifier")?,
            }
        }
        count(operands, 2 + usize::from(combine > 0)..=2 + usize::from(combine > 0))?;
        let Some(exec) = compare::find(parts[0], kind) else { return unknown() };
        let wide = type_bytes(kind) == Some(8);
        let (mut a, mut b) = (self.source(&operands[0], wide)?, self.source(&operands[1], wide)?);
        if flushes && kind == "f32" {
            (a, b) = (self.flushed(a), self.flushed(b));
        }
        let c = operands.get(2).map_or(Ok(Ref::Raw(0)), |operand| self.predicate(operand))?;
        let draft = self.draft(exec);
        self.push(Draft { d, a, b, c, list, aux: combine as u32, ..draft });
        Ok(())
    }

    /// set: a comparison whose result is a number.
    pub(super) fn set(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let [inner @ .., to, from] = &parts[1..] else { return unknown() };
        let yes = match *to {
            "f32" => u64::from(1f32.to_bits()),
            "u32" | "s32" => u64::MAX,
            _ => return unknown(),
        };
        let holds = Ref::Raw(self.predicates);
        self.predicates += 1;
        self.comparison(inner, from, holds, Vec::new(), &operands[1..])?;
        let (d, a, b) = (self.target(&operands[0], false)?, self.constant(yes, false), self.constant(0, false));
        let draft = self.draft(compare::selection(false));
        self.push(Draft { d, a, b, c: holds, ..draft });
        Ok(())
    }

    pub(super) fn selp(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        count(operands, 4..=4)?;
        let [_, kind] = parts else { return unknown() };
        let wide = type_bytes(kind).ok_or("unknown type")? == 8;
        let (a, b) = (self.source(&operands[1], wide)?, self.source(&operands[2], wide)?);
        let (c, d) = (self.predicate(&operands[3])?, self.target(&operands[0], wide)?);
        let draft = self.draft(compare::selection(wide));
        self.push(Draft { d, a, b, c, ..draft });
        Ok(())
    }

    /// slct: a where c >= 0, else b.
    pub(super) fn slct(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        count(operands, 4..=4)?;
        let [_, kind, by @ ("s32" | "f32")] = parts else { return unknown() };
        let holds = Ref::Raw(self.predicates);
        self.predicates += 1;
        self.comparison(&["ge"], by, holds, Vec::new(), &[operands[3].clone(), Operand::Immediate(0)])?;
        let wide = type_bytes(kind).ok_or("unknown type")? == 8;
        let (a, b) = (self.source(&operands[1], wide)?, self.source(&operands[2], wide)?);
        let d = self.target(&operands[0], wide)?;
        let draft = self.draft(compare::selection(wide));
        self.push(Draft { d, a, b, c: holds, ..draft });
        Ok(())
    }

    pub(super) fn is_space(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        count(operands, 2..=2)?;
        let space = parts.get(1).and_then(|name| Space::named(name)).ok_or("unknown space")?;
        let (d, a) = (self.predicate_target(&operands[0])?, self.double(&operands[1])?);
        let draft = self.draft(moves::is_space);
        self.push(Draft { d, a, imm: space.window() as i64, ..draft });
        Ok(())
    }
}
