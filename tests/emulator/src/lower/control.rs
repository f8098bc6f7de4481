//! Branches, barriers, and what the lanes of a warp do together.

use super::{Draft, Lowerer, Ref, Result, count, unknown};
use crate::ops::compare::NONE;
use crate::ops::{moves, warp_wide};
use crate::program::{BARRIER_ALIGNED, BARRIER_AND, BARRIER_ARRIVE, BARRIER_COUNTED, BARRIER_OR, BARRIER_POPC, Kind};
use crate::syntax::{Entry, Operand, Statement};

impl Lowerer {
    pub(super) fn control(&mut self, entry: &Entry, statement: &Statement, parts: &[&str]) -> Result<()> {
        let operands = &statement.operands[..];
        let draft = self.draft(moves::nothing);
        let target = |name: &str| entry.label(name, statement.scope).ok_or(format!("unknown label {name}"));
        match parts[0] {
            "ret" | "exit" => self.push(Draft { kind: Kind::Return, ..draft }),
            "trap" => self.push(Draft { exec: moves::trap, ..draft }),
            "bra" => {
                let [Operand::Name(name, _)] = operands else { return Err("expected a label".to_owned()) };
                self.push(Draft { kind: Kind::Branch, imm: target(name)? as i64, ..draft });
            }
            "brx" => {
                let [index, Operand::Name(table, _)] = operands else {
                    return Err("expected an index and a table".to_owned());
                };
                let labels = entry.table(table, statement.scope).ok_or(format!("unknown table {table}"))?;
                let list: Result<Vec<Ref>> = labels.iter().map(|name| Ok(Ref::Raw(target(name)? as u32))).collect();
                let a = self.word(index)?;
                self.push(Draft { kind: Kind::Indexed, a, list: list?, ..draft });
            }
            _ => return self.barrier(parts, operands),
        }
        Ok(())
    }

    fn barrier(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let mut names: Vec<&str> = parts[1..].iter().copied().filter(|part| *part != "cta").collect();
        let aligned = parts[0] == "bar" || names.contains(&"aligned");
        names.retain(|name| *name != "aligned");
        let mut aux = if aligned { BARRIER_ALIGNED } else { 0 };
        let mut draft = self.draft(moves::nothing);
        if let ["warp", "sync"] = names[..] {
            count(operands, 1..=1)?;
            draft.list = vec![self.word(&operands[0])?];
            self.push(Draft { kind: Kind::Members, ..draft });
            return Ok(());
        }
        let mut operands = operands;
        match names[..] {
            ["sync"] => count(operands, 1..=2)?,
            ["arrive"] => {
                count(operands, 2..=2)?;
                aux |= BARRIER_ARRIVE;
            }
            ["red", what, _] => {
                count(operands, 3..=4)?;
                (draft.d, aux) = match what {
                    "popc" => (self.target(&operands[0], false)?, aux | BARRIER_POPC),
                    "and" => (self.predicate_target(&operands[0])?, aux | BARRIER_AND),
                    "or" => (self.predicate_target(&operands[0])?, aux | BARRIER_OR),
                    _ => return unknown(),
                };
                draft.c = self.predicate(&operands[operands.len() - 1])?;
                operands = &operands[1..operands.len() - 1];
            }
            _ => return unknown(),
        }
        draft.a = self.word(&operands[0])?;
        if let Some(threads) = operands.get(1) {
            draft.b = self.word(threads)?;
            aux |= BARRIER_COUNTED;
        }
        self.push(Draft { kind: Kind::Barrier, aux, ..draft });
        Ok(())
    }

    pub(super) fn warp_wide(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let index = |names: &[&str], name: &str| names.iter().position(|known| *known == name).map(|at| at as u32);
        let draft = self.draft(moves::nothing);
        match parts {
            ["activemask", "b32"] => {
                let d = self.target(&operands[0], false)?;
                self.push(Draft { exec: warp_wide::active_mask, d, ..draft });
            }
            ["shfl", "sync", mode, "b32"] => {
                count(operands, 5..=5)?;
                let aux = index(&warp_wide::SHUFFLES, mode).ok_or("unknown mode")?;
                let (d, p) = self.with_predicate(&operands[0])?;
                let (a, b, c) = (self.word(&operands[1])?, self.word(&operands[2])?, self.word(&operands[3])?);
                let list = vec![p, self.word(&operands[4])?];
                self.push(Draft { exec: warp_wide::shuffle, kind: Kind::Members, d, a, b, c, list, aux, ..draft });
            }
            ["vote", "sync", mode, "pred" | "b32"] => {
                count(operands, 3..=3)?;
                let aux = index(&warp_wide::VOTES, mode).ok_or("unknown mode")?;
                let ballot = *mode == "ballot";
                let d = if ballot { self.target(&operands[0], false)? } else { self.predicate_target(&operands[0])? };
                let (a, mask) = (self.predicate(&operands[1])?, self.word(&operands[2])?);
                self.push(Draft { exec: warp_wide::vote, kind: Kind::Members, d, a, list: vec![mask], aux, ..draft });
            }
            ["match", mode @ ("any" | "all"), "sync", "b32"] => {
                count(operands, 3..=3)?;
                let (d, p) = self.with_predicate(&operands[0])?;
                let a = self.word(&operands[1])?;
                let list = vec![p, self.word(&operands[2])?];
                let aux = u32::from(*mode == "all");
                self.push(Draft { exec: warp_wide::matching, kind: Kind::Members, d, a, list, aux, ..draft });
            }
            ["redux", "sync", operation, kind] => {
                count(operands, 3..=3)?;
                let name = format!("{operation}.{kind}");
                let beyond = (name == "xor.b32").then_some(warp_wide::REDUCTIONS.len() as u32);
                let aux = index(&warp_wide::REDUCTIONS, &name).or(beyond).ok_or("unknown operation")?;
                let (d, a) = (self.target(&operands[0], false)?, self.word(&operands[1])?);
                let list = vec![self.word(&operands[2])?];
                self.push(Draft { exec: warp_wide::reduce, kind: Kind::Members, d, a, list, aux, ..draft });
            }
            ["elect", "sync"] => {
                count(operands, 2..=2)?;
                let (d, p) = self.with_predicate(&operands[0])?;
                let list = vec![if p == Ref::Raw(NONE) { Ref::Raw(0) } else { p }, self.word(&operands[1])?];
                self.push(Draft { exec: warp_wide::elect, kind: Kind::Members, d, list, ..draft });
            }
            _ => return unknown(),
        }
        Ok(())
    }

    /// A word to write, and the predicate of `d|p`.
    fn with_predicate(&mut self, operand: &Operand) -> Result<(Ref, Ref)> {
        match operand {
            Operand::Pair(d, p) => Ok((self.target(d, false)?, self.predicate_target(p)?)),
            operand => Ok((self.target(operand, false)?, Ref::Raw(NONE))),
        }
    }
}
