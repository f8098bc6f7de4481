//! What compute capability 9.0 adds: mbarriers, tensor copies, products of warpgroups.

use super::{Draft, Lowerer, Ref, Result, count, unknown};
use crate::ops::compare::NONE;
use crate::ops::{self, bulk_copy, cluster, mbarrier, moves};
use crate::program::Kind;
use crate::syntax::Operand;
use crate::tensor_core::wgmma::{self, Plan};

impl Lowerer {
    /// An address as one double.
    fn flat(&mut self, operand: &Operand) -> Result<Ref> {
        let (base, offset, _) = self.address(operand)?;
        if offset == 0 {
            return Ok(base);
        }
        let (to, b) = (self.register(true), self.constant(offset as u64, true));
        let draft = self.draft(ops::find("add.u64").expect("a row of the table").exec);
        self.push(Draft { d: Ref::Def(to), a: base, b, ..draft });
        Ok(Ref::Use(to))
    }

    pub(super) fn mbarrier(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        // Memory order, scope and space change nothing: a block's threads run one after the other.
        const HINTS: [&str; 8] =
            ["release", "acquire", "relaxed", "cta", "cluster", "shared", "shared::cta", "shared::cluster"];
        let words: Vec<&str> = parts[1..].iter().copied().filter(|part| !HINTS.contains(part)).collect();
        let draft = self.draft(moves::nothing);
        match words[..] {
            ["init", "b64"] => {
                count(operands, 2..=2)?;
                let ((a, imm, _), b) = (self.address(&operands[0])?, self.word(&operands[1])?);
                self.push(Draft { exec: mbarrier::init, a, b, imm, ..draft });
            }
            ["inval", "b64"] => {
                count(operands, 1..=1)?;
                let (a, imm, _) = self.address(&operands[0])?;
                self.push(Draft { exec: mbarrier::invalidate, a, imm, ..draft });
            }
            ["expect_tx", "b64"] => {
                count(operands, 2..=2)?;
                let ((a, imm, _), b) = (self.address(&operands[0])?, self.word(&operands[1])?);
                let list = vec![Ref::Raw(NONE)];
                self.push(Draft { exec: mbarrier::arrive, a, b, imm, list, aux: mbarrier::EXPECTS, ..draft });
            }
            ["arrive", ref expects @ .., "b64"] if matches!(*expects, [] | ["expect_tx"]) => {
                let expects = !expects.is_empty();
                count(operands, 2 + usize::from(expects)..=3)?;
                let state = match &operands[0] {
                    Operand::Sink => Ref::Raw(NONE),
                    operand => self.target(operand, true)?,
                };
                let (a, imm, _) = self.address(&operands[1])?;
                let b = match operands.get(2) {
                    Some(operand) => self.word(operand)?,
                    None => self.constant(1, false),
                };
                let aux = mbarrier::ARRIVES | if expects { mbarrier::EXPECTS } else { 0 };
                self.push(Draft { exec: mbarrier::arrive, a, b, imm, list: vec![state], aux, ..draft });
            }
            ["test_wait" | "try_wait", ref parity @ .., "b64"] if matches!(*parity, [] | ["parity"]) => {
                // A fourth operand hints at how long to suspend.
                count(operands, 3..=4)?;
                let by_parity = !parity.is_empty();
                let d = self.predicate_target(&operands[0])?;
                let (a, imm, _) = self.address(&operands[1])?;
                let b = self.source(&operands[2], !by_parity)?;
                let aux = if by_parity { mbarrier::BY_PARITY } else { 0 };
                self.push(Draft { exec: mbarrier::wait, kind: Kind::Yields, d, a, b, imm, aux, ..draft });
            }
            _ => return unknown(),
        }
        Ok(())
    }

    /// cp.async.bulk.tensor to this block's shared memory.
    pub(super) fn bulk_copy(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let (rank, rest) = match parts {
            ["cp", "async", "bulk", "tensor", rank, to, "global", rest @ ..]
                if matches!(*to, "shared::cluster" | "shared::cta") =>
            {
                (rank, rest)
            }
            _ => return unknown(),
        };
        let rest = rest.strip_prefix(&["tile"]).unwrap_or(rest);
        let multicast = match rest {
            ["mbarrier::complete_tx::bytes"] => false,
            ["mbarrier::complete_tx::bytes", "multicast::cluster"] => true,
            _ => return unknown(),
        };
        let [target, Operand::TensorAddress(tensor), barrier, blocks @ ..] = operands else {
            return Err("expected a target, a tensor and a barrier".to_owned());
        };
        count(blocks, usize::from(multicast)..=usize::from(multicast))?;
        let [map, Operand::Vector(coordinates)] = &tensor[..] else {
            return Err("expected a tensor map and coordinates".to_owned());
        };
        if *rank != format!("{}d", coordinates.len()) {
            return Err(format!("{} coordinates for {rank}", coordinates.len()));
        }
        let (a, b) = (self.flat(target)?, self.double(map)?);
        let mut list = vec![self.flat(barrier)?];
        for coordinate in coordinates {
            list.push(self.word(coordinate)?);
        }
        if let [mask] = blocks {
            list.push(self.word(mask)?);
        }
        let draft = self.draft(bulk_copy::fetch);
        self.push(Draft { a, b, list, aux: u32::from(multicast), ..draft });
        Ok(())
    }

    pub(super) fn cluster_barrier(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        count(operands, 0..=0)?;
        let words: Vec<&str> = parts[2..]
            .iter()
            .copied()
            .filter(|part| !["aligned", "release", "acquire", "relaxed"].contains(part))
            .collect();
        let (exec, kind) = match words[..] {
            ["arrive"] => (cluster::arrive as crate::program::Exec, Kind::Whole),
            ["wait"] => (cluster::wait as _, Kind::Polls),
            _ => return unknown(),
        };
        let draft = self.draft(exec);
        self.push(Draft { kind, ..draft });
        Ok(())
    }

    pub(super) fn map_address(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let ["mapa", "shared::cluster", "u32"] = parts else { return unknown() };
        count(operands, 3..=3)?;
        let d = self.target(&operands[0], false)?;
        let (a, b) = (self.word(&operands[1])?, self.word(&operands[2])?);
        let draft = self.draft(cluster::map_address);
        self.push(Draft { d, a, b, ..draft });
        Ok(())
    }

    /// setmaxnreg: registers are not counted here, but what the instruction asks is.
    pub(super) fn set_registers(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let ["setmaxnreg", "inc" | "dec", "sync", "aligned", "u32"] = parts else { return unknown() };
        match operands {
            [Operand::Immediate(registers)] if (24..=256).contains(registers) && registers.is_multiple_of(8) => {
                let draft = self.draft(moves::nothing);
                self.push(Draft { kind: Kind::Whole, ..draft });
                Ok(())
            }
            _ => Err("expected a multiple of 8 from 24 to 256".to_owned()),
        }
    }

    pub(super) fn wgmma(&mut self, mnemonic: &str, parts: &[&str], operands: &[Operand]) -> Result<()> {
        let (exec, imm) = match (parts, operands) {
            (["wgmma", "fence", "sync", "aligned"], []) => (wgmma::fence as crate::program::Exec, 0),
            (["wgmma", "commit_group", "sync", "aligned"], []) => (wgmma::commit as _, 0),
            (["wgmma", "wait_group", "sync", "aligned"], [Operand::Immediate(groups)]) => {
                (wgmma::wait as _, *groups as i64)
            }
            (["wgmma", "mma_async", ..], _) => return self.warpgroup_product(mnemonic, operands),
            _ => return unknown(),
        };
        let draft = self.draft(exec);
        self.push(Draft { kind: Kind::Whole, imm, ..draft });
        Ok(())
    }

    /// d, a, b, scale-d, imm-scale-a, imm-scale-b, then imm-trans-a (where a is in shared memory) and imm-trans-b.
    fn warpgroup_product(&mut self, mnemonic: &str, operands: &[Operand]) -> Result<()> {
        let Some((n, element)) = Plan::named(mnemonic) else { return unknown() };
        let a_in_registers = matches!(operands.get(1), Some(Operand::Vector(_)));
        count(operands, if a_in_registers { 7..=7 } else { 8..=8 })?;
        let immediate = |at: usize| match operands[at] {
            Operand::Immediate(value) => Ok(value as i64),
            _ => Err(format!("operand {at} is no constant")),
        };
        let mut negated = false;
        for at in [4, 5] {
            match immediate(at)? {
                1 => {}
                -1 => negated = !negated,
                scale => return Err(format!("a scale of {scale}")),
            }
        }
        let mut majors = Vec::new();
        for at in 6..operands.len() {
            majors.push(match immediate(at)? {
                0 => false,
                1 => true,
                other => return Err(format!("a transposition of {other}")),
            });
        }
        let mn_major = if a_in_registers { [false, majors[0]] } else { [majors[0], majors[1]] };
        let mut list = self.registers(&operands[0], false)?;
        list.extend(self.registers(&operands[0], true)?);
        if list.len() != n {
            return Err(format!("{} registers for 64 x {n} sums", list.len() / 2));
        }
        let a = if a_in_registers {
            let registers = self.registers(&operands[1], false)?;
            if registers.len() != 4 {
                return Err(format!("{} registers for 64 x 16 elements", registers.len()));
            }
            list.extend(registers);
            Ref::None
        } else {
            self.double(&operands[1])?
        };
        let (b, c) = (self.double(&operands[2])?, self.predicate(&operands[3])?);
        let plan = Plan { n, element, mn_major, negated, a_in_registers };
        // As for mma: the plan lives as long as its kernel.
        let imm = std::ptr::from_ref(Box::leak(Box::new(plan))) as i64;
        let draft = self.draft(wgmma::multiplication());
        self.push(Draft { kind: Kind::Whole, a, b, c, list, imm, ..draft });
        Ok(())
    }
}
