//! What a module of PTX is made of, once parsed.

use std::collections::HashMap;

/// A register, numbered within its entry.
pub type Register = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Predicate,
    /// 8 to 32 bits: one word a lane.
    Word,
    Double,
    Quad,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Register(Register),
    NotRegister(Register),
    /// `p|q`
    Pair(Box<Operand>, Box<Operand>),
    /// An integer, as two's complement, or a floating-point constant's bits.
    Immediate(u64),
    /// A variable, parameter, label or special register, and an offset.
    Name(String, i64),
    /// `_`
    Sink,
    Address(Box<Operand>, i64),
    /// `[a, {x, y}]`, as tensor instructions have it.
    TensorAddress(Vec<Operand>),
    Vector(Vec<Operand>),
}

#[derive(Clone, Debug)]
pub struct Statement {
    /// A predicate and whether it is negated.
    pub guard: Option<(Register, bool)>,
    pub mnemonic: String,
    pub operands: Vec<Operand>,
    pub line: u32,
    pub scope: usize,
}

/// A variable, parameter or array in some state space.
#[derive(Clone, Debug)]
pub struct Variable {
    pub space: String,
    pub name: String,
    pub align: usize,
    pub bytes: usize,
    pub initial: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Entry {
    pub name: String,
    pub parameters: Vec<Variable>,
    pub variables: Vec<Variable>,
    pub classes: Vec<Class>,
    pub statements: Vec<Statement>,
    /// Blocks of a cluster along x (`.reqnctapercluster`); 0: no clusters.
    pub cluster: u32,
    /// Label and the scope that declares it, to the statement that follows it.
    pub(crate) labels: HashMap<(String, usize), usize>,
    pub(crate) tables: HashMap<(String, usize), Vec<String>>,
    /// The scope around each scope.
    pub(crate) parents: Vec<usize>,
}

impl Entry {
    fn outwards<'a, T>(&self, map: &'a HashMap<(String, usize), T>, name: &str, scope: usize) -> Option<&'a T> {
        let mut scope = scope;
        loop {
            if let Some(found) = map.get(&(name.to_owned(), scope)) {
                return Some(found);
            }
            if scope == 0 {
                return None;
            }
            scope = self.parents[scope];
        }
    }

    /// The statement that `name` labels, as seen from `scope`.
    pub fn label(&self, name: &str, scope: usize) -> Option<usize> {
        self.outwards(&self.labels, name, scope).copied()
    }

    /// The labels of a `.branchtargets` table.
    pub fn table(&self, name: &str, scope: usize) -> Option<&Vec<String>> {
        self.outwards(&self.tables, name, scope)
    }
}

#[derive(Debug, Default)]
pub struct Module {
    pub variables: Vec<Variable>,
    pub entries: Vec<Entry>,
}
