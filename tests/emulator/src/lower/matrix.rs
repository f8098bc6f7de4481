//! Tensor core instructions.

use super::{Draft, Lowerer, Ref, Result, count, unknown};
use crate::machine::address::Space;
use crate::ops::moves;
use crate::program::Kind;
use crate::syntax::Operand;
use crate::tensor_core::wmma::{self, Tile};
use crate::tensor_core::{Element, Plan, layout, move_matrix, multiplication};

impl Lowerer {
    /// The registers of a vector operand, or of a single one.
    pub(super) fn registers(&mut self, operand: &Operand, writes: bool) -> Result<Vec<Ref>> {
        let parts = if let Operand::Vector(parts) = operand { &parts[..] } else { std::slice::from_ref(operand) };
        parts.iter().map(|part| if writes { self.target(part, false) } else { self.word(part) }).collect()
    }

    pub(super) fn mma(&mut self, mnemonic: &str, operands: &[Operand]) -> Result<()> {
        let Some(plan) = layout::mma(mnemonic) else { return unknown() };
        self.multiplication(plan, operands)
    }

    fn multiplication(&mut self, plan: Plan, operands: &[Operand]) -> Result<()> {
        count(operands, 4..=4)?;
        let mut list = Vec::new();
        for (at, fragment) in [&plan.d, &plan.a, &plan.b, &plan.c].into_iter().enumerate() {
            let registers = self.registers(&operands[at], at == 0)?;
            if registers.len() != fragment.registers {
                return Err(format!("{} registers for a fragment of {}", registers.len(), fragment.registers));
            }
            list.extend(registers);
        }
        // Kernels live as long as the process: so may their plans.
        let imm = std::ptr::from_ref(Box::leak(Box::new(plan))) as i64;
        let draft = self.draft(multiplication());
        self.push(Draft { kind: Kind::Whole, list, imm, ..draft });
        Ok(())
    }

    pub(super) fn wmma(&mut self, mnemonic: &str, parts: &[&str], operands: &[Operand]) -> Result<()> {
        if parts.get(1) == Some(&"mma") {
            count(operands, 4..=4)?;
            let mut registers = [0; 4];
            for (count, operand) in registers.iter_mut().zip(operands) {
                *count = if let Operand::Vector(parts) = operand { parts.len() } else { 1 };
            }
            let Some(plan) = layout::wmma_plan(mnemonic, registers) else { return unknown() };
            return self.multiplication(plan, operands);
        }
        let (loads, matrix, order, shape, space, kind) = match *parts {
            ["wmma", "load", matrix, "sync", "aligned", order, shape, kind] => (true, matrix, order, shape, "", kind),
            ["wmma", "load", matrix, "sync", "aligned", order, shape, space, kind] => {
                (true, matrix, order, shape, space, kind)
            }
            ["wmma", "store", "d", "sync", "aligned", order, shape, kind] => (false, "d", order, shape, "", kind),
            ["wmma", "store", "d", "sync", "aligned", order, shape, space, kind] => {
                (false, "d", order, shape, space, kind)
            }
            _ => return unknown(),
        };
        count(operands, 2..=3)?;
        let (m, n, k) = layout::shape(shape).ok_or("unknown shape")?;
        let element = Element::named(kind).ok_or("unknown type")?;
        let (rows, columns) = match matrix {
            "a" => (m, k),
            "b" => (k, n),
            _ => (m, n),
        };
        let row_major = order == "row";
        let (value, address) = if loads { (&operands[0], &operands[1]) } else { (&operands[1], &operands[0]) };
        let list = self.registers(value, loads)?;
        // Accumulators have one layout for both orders in memory, since their multiplications do not name one.
        let by_rows = row_major || matches!(matrix, "c" | "d");
        let fragment = layout::wmma(element, rows, columns, list.len(), by_rows).ok_or("no such fragment")?;
        let space = if space.is_empty() { Space::Generic } else { Space::named(space).ok_or("unknown space")? };
        let (a, imm, named) = self.address(address)?;
        let space = if space == Space::Generic { named.unwrap_or(space) } else { space };
        let leading = if row_major { columns } else { rows } as u64;
        let b = match operands.get(2) {
            Some(stride) => self.word(stride)?,
            None => self.constant(leading, false),
        };
        let tile = std::ptr::from_ref(Box::leak(Box::new(Tile { fragment, row_major, space }))) as u64;
        let draft = self.draft(if loads { wmma::load } else { wmma::store });
        let (c, aux) = (Ref::Raw(tile as u32), (tile >> 32) as u32);
        self.push(Draft { kind: Kind::Whole, a, b, c, aux, list, imm, ..draft });
        Ok(())
    }

    pub(super) fn move_matrix(&mut self, parts: &[&str], operands: &[Operand]) -> Result<()> {
        count(operands, 2..=2)?;
        let draft = self.draft(moves::nothing);
        if let ["movmatrix", "sync", "aligned", "m8n8", "trans", "b16"] = parts {
            let (d, a) = (self.target(&operands[0], false)?, self.word(&operands[1])?);
            self.push(Draft { exec: move_matrix::transpose, kind: Kind::Whole, d, a, ..draft });
            return Ok(());
        }
        let loads = parts[0] == "ldmatrix";
        let [_, "sync", "aligned", "m8n8", number, rest @ .., "b16"] = parts else { return unknown() };
        let mut aux = move_matrix::GENERIC;
        for part in rest {
            match *part {
                "trans" => aux |= move_matrix::TRANSPOSED,
                "shared" | "shared::cta" => aux &= !move_matrix::GENERIC,
                _ => return unknown(),
            }
        }
        let (value, address) = if loads { (&operands[0], &operands[1]) } else { (&operands[1], &operands[0]) };
        let list = self.registers(value, loads)?;
        if *number != format!("x{}", list.len()) {
            return Err(format!("{} registers for {number}", list.len()));
        }
        let (a, imm, _) = self.address(address)?;
        let exec = if loads { move_matrix::load } else { move_matrix::store };
        self.push(Draft { exec, kind: Kind::Whole, a, imm, list, aux, ..draft });
        Ok(())
    }
}
