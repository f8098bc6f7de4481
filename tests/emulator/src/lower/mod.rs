//! Parsed entries to kernels: mnemonics to functions, operands to offsets.
//!
//! What has no function here is an error that names the instruction, so that nothing is skipped in silence.

mod control;
mod data;
mod hopper;
mod matrix;
mod memory;

use std::collections::HashMap;
use std::sync::Arc;

use crate::allocate::allocate;
use crate::machine::address::Space;
use crate::memory::Memory;
use crate::ops::moves::{self, SPECIAL};
use crate::parse::parse;
use crate::program::{CONSTANT, Exec, Inst, Kernel, Kind, LANES, Line, NO_GUARD, NOT};
use crate::syntax::{Class, Entry, Operand, Statement, Variable};

/// An operand before registers have places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ref {
    None,
    /// As it is: predicates, numbers.
    Raw(u32),
    /// Offset in the constant pool.
    Constant(u32),
    Use(u32),
    Def(u32),
}

/// An instruction before registers have places.
#[derive(Clone, Debug)]
pub struct Draft {
    pub exec: Exec,
    pub kind: Kind,
    pub guard: Option<(u16, bool)>,
    pub d: Ref,
    pub a: Ref,
    pub b: Ref,
    pub c: Ref,
    pub list: Vec<Ref>,
    pub imm: i64,
    pub aux: u32,
    pub line: u32,
}

impl Draft {
    pub fn references(&self, mut see: impl FnMut(Ref)) {
        for reference in [self.d, self.a, self.b, self.c].iter().chain(&self.list) {
            see(*reference);
        }
    }

    /// The instructions to which it may branch.
    pub fn targets(&self) -> Vec<usize> {
        match self.kind {
            Kind::Branch => vec![self.imm as usize],
            Kind::Indexed => {
                self.list.iter().map(|target| if let Ref::Raw(at) = target { *at as usize } else { 0 }).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Where a PTX register lives.
#[derive(Clone, Copy)]
enum Home {
    Predicate(u32),
    Word(u32),
    Double(u32),
    /// 128-bit registers are not supported; naming one is an error.
    Quad,
}

/// Where a variable lies in its space.
#[derive(Clone, Copy)]
struct Symbol {
    space: Space,
    address: u64,
}

type Result<T> = std::result::Result<T, String>;

/// All kernels of a module. Module-wide variables are allocated in `memory`, where they stay.
///
/// # Errors
/// What could not be parsed or has no implementation, with kernel, line and instruction.
pub fn module(text: &str, memory: &mut Memory) -> Result<Vec<Arc<Kernel>>> {
    let module = parse(text)?;
    let mut globals = HashMap::new();
    for variable in module.variables.iter().filter(|variable| matches!(variable.space.as_str(), "global" | "const")) {
        let address = memory.allocate(variable.bytes).ok_or("no memory for a module's variables")?;
        let mut initial = variable.initial.clone();
        initial.resize(variable.bytes, 0);
        // SAFETY: the allocation has that many bytes and is not in use yet.
        unsafe { (address as *mut u8).copy_from_nonoverlapping(initial.as_ptr(), initial.len()) };
        globals.insert(variable.name.clone(), Symbol { space: Space::Global, address });
    }
    let shared: Vec<&Variable> = module.variables.iter().filter(|variable| variable.space == "shared").collect();
    module.entries.iter().map(|entry| Lowerer::new(globals.clone()).entry(entry, &shared).map(Arc::new)).collect()
}

struct Lowerer {
    symbols: HashMap<String, Symbol>,
    homes: Vec<Home>,
    /// Of each virtual register: whether it is a double.
    wide: Vec<bool>,
    predicates: u32,
    constants: Vec<Line>,
    known: HashMap<(u64, bool), u32>,
    code: Vec<Draft>,
    line: u32,
    guard: Option<(u16, bool)>,
}

impl Lowerer {
    fn new(symbols: HashMap<String, Symbol>) -> Self {
        Self {
            symbols,
            homes: Vec::new(),
            wide: Vec::new(),
            // Predicate 0 takes what nobody wants.
            predicates: 1,
            constants: Vec::new(),
            known: HashMap::new(),
            code: Vec::new(),
            line: 0,
            guard: None,
        }
    }

    fn entry(mut self, entry: &Entry, module_shared: &[&Variable]) -> Result<Kernel> {
        let mut parameter_bytes = 0usize;
        let mut parameters = Vec::new();
        for parameter in &entry.parameters {
            parameter_bytes = parameter_bytes.next_multiple_of(parameter.align.max(1));
            parameters.push((parameter_bytes, parameter.bytes));
            self.symbol(parameter, Space::Param, parameter_bytes);
            parameter_bytes += parameter.bytes;
        }
        let shared: Vec<&Variable> =
            module_shared.iter().copied().chain(entry.variables.iter().filter(|v| v.space == "shared")).collect();
        let static_shared = self.shared(&shared);
        let mut local = 0;
        for variable in entry.variables.iter().filter(|variable| variable.space == "local") {
            local = usize::next_multiple_of(local, variable.align.max(1));
            self.symbol(variable, Space::Local, local);
            local += variable.bytes;
        }
        for class in &entry.classes {
            let home = match class {
                Class::Predicate => {
                    self.predicates += 1;
                    Home::Predicate(self.predicates - 1)
                }
                Class::Word => Home::Word(self.register(false)),
                Class::Double => Home::Double(self.register(true)),
                Class::Quad => Home::Quad,
            };
            self.homes.push(home);
        }
        let mut starts = Vec::with_capacity(entry.statements.len() + 1);
        for statement in &entry.statements {
            starts.push(self.code.len());
            self.statement(entry, statement).map_err(|reason| {
                format!("kernel {}, PTX line {}: {}: {reason}", entry.name, statement.line, statement.mnemonic)
            })?;
        }
        starts.push(self.code.len());
        self.guard = None;
        let end = self.draft(moves::nothing);
        self.push(Draft { kind: Kind::Return, ..end });
        // Branches hold statements until here.
        for draft in &mut self.code {
            match draft.kind {
                Kind::Branch => draft.imm = starts[draft.imm as usize] as i64,
                Kind::Indexed => {
                    for target in &mut draft.list {
                        if let Ref::Raw(at) = target {
                            *at = starts[*at as usize] as u32;
                        }
                    }
                }
                _ => {}
            }
        }
        let mut kernel = self.finish(entry.name.clone(), parameters, parameter_bytes, static_shared, local);
        kernel.cluster = entry.cluster.max(1) as usize;
        Ok(kernel)
    }

    fn finish(
        self,
        name: String,
        parameters: Vec<(usize, usize)>,
        parameter_bytes: usize,
        static_shared: usize,
        local: usize,
    ) -> Kernel {
        let (places, register_bytes) = allocate(&self.code, &self.wide);
        let place = |reference: Ref| match reference {
            Ref::None => 0,
            Ref::Raw(value) => value,
            Ref::Constant(offset) => CONSTANT | offset,
            Ref::Use(v) | Ref::Def(v) => places[v as usize],
        };
        let code = self.code.iter().map(|draft| Inst {
            exec: draft.exec,
            imm: draft.imm,
            d: place(draft.d),
            a: place(draft.a),
            b: place(draft.b),
            c: place(draft.c),
            aux: draft.aux,
            line: draft.line,
            list: draft.list.iter().map(|&reference| place(reference)).collect(),
            guard: draft.guard.map_or(NO_GUARD, |(guard, _)| guard),
            invert: draft.guard.is_some_and(|(_, invert)| invert),
            kind: draft.kind,
        });
        Kernel {
            name,
            code: code.collect(),
            constants: self.constants,
            register_bytes,
            predicates: self.predicates as usize,
            parameters,
            parameter_bytes,
            static_shared,
            local,
            cluster: 1,
        }
    }

    fn symbol(&mut self, variable: &Variable, space: Space, at: usize) {
        self.symbols.insert(variable.name.clone(), Symbol { space, address: at as u64 });
    }

    /// Lays out shared memory: static variables, then the one that the launch sizes. Returns where that begins.
    fn shared(&mut self, variables: &[&Variable]) -> usize {
        let mut bytes = 0usize;
        for variable in variables.iter().filter(|variable| variable.bytes > 0) {
            bytes = bytes.next_multiple_of(variable.align.max(1));
            self.symbol(variable, Space::Shared, bytes);
            bytes += variable.bytes;
        }
        let open: Vec<_> = variables.iter().filter(|variable| variable.bytes == 0).collect();
        if let Some(align) = open.iter().map(|variable| variable.align).max() {
            bytes = bytes.next_multiple_of(align.max(16));
        }
        for variable in open {
            self.symbol(variable, Space::Shared, bytes);
        }
        bytes
    }

    /// A new virtual register.
    fn register(&mut self, wide: bool) -> u32 {
        self.wide.push(wide);
        self.wide.len() as u32 - 1
    }

    /// A draft of the current statement's line and guard, without operands.
    fn draft(&self, exec: Exec) -> Draft {
        Draft {
            exec,
            kind: Kind::Plain,
            guard: self.guard,
            d: Ref::None,
            a: Ref::None,
            b: Ref::None,
            c: Ref::None,
            list: Vec::new(),
            imm: 0,
            aux: 0,
            line: self.line,
        }
    }

    fn push(&mut self, draft: Draft) {
        self.code.push(draft);
    }

    /// Offset of a lane array that holds `value` in all lanes.
    fn constant(&mut self, value: u64, wide: bool) -> Ref {
        let value = if wide { value } else { value & 0xffff_ffff };
        let next = (self.constants.len() * size_of::<Line>()) as u32;
        let offset = *self.known.entry((value, wide)).or_insert(next);
        if offset == next {
            let bytes: Vec<u8> =
                if wide { value.to_le_bytes().repeat(LANES) } else { (value as u32).to_le_bytes().repeat(LANES) };
            self.constants.extend(bytes.chunks_exact(64).map(|chunk| Line(chunk.try_into().expect("64 bytes"))));
        }
        Ref::Constant(offset)
    }

    /// An operand that is read, of one of the two widths.
    fn source(&mut self, operand: &Operand, wide: bool) -> Result<Ref> {
        match operand {
            Operand::Register(register) => match self.homes[*register as usize] {
                Home::Word(v) if !wide => Ok(Ref::Use(v)),
                Home::Double(v) if wide => Ok(Ref::Use(v)),
                _ => Err(format!("an operand of {} bits has another size", if wide { 64 } else { 32 })),
            },
            Operand::Immediate(value) => Ok(self.constant(*value, wide)),
            Operand::Name(name, offset) => {
                if let Some(at) = SPECIAL.iter().position(|known| known == name) {
                    if moves::is_wide(name) != wide {
                        return Err(format!("{name} has another size"));
                    }
                    let to = self.register(wide);
                    let draft = self.draft(moves::special);
                    self.push(Draft { d: Ref::Def(to), aux: at as u32, ..draft });
                    return Ok(Ref::Use(to));
                }
                // The one constant that PTX predefines.
                if name == "WARP_SZ" {
                    return Ok(self.constant(LANES as u64, wide));
                }
                let symbol = self.named(name)?;
                Ok(self.constant(symbol.address.wrapping_add(*offset as u64), wide))
            }
            _ => Err(format!("operand {operand:?}")),
        }
    }

    fn named(&self, name: &str) -> Result<Symbol> {
        self.symbols.get(name).copied().ok_or(format!("unknown name {name}"))
    }

    fn word(&mut self, operand: &Operand) -> Result<Ref> {
        self.source(operand, false)
    }

    fn double(&mut self, operand: &Operand) -> Result<Ref> {
        self.source(operand, true)
    }

    /// An operand that is written.
    fn target(&mut self, operand: &Operand, wide: bool) -> Result<Ref> {
        match operand {
            Operand::Sink => Ok(Ref::Def(self.register(wide))),
            operand => match self.source(operand, wide)? {
                Ref::Use(v) => Ok(Ref::Def(v)),
                _ => Err(format!("operand {operand:?} cannot be written")),
            },
        }
    }

    /// A predicate that is read.
    fn predicate(&mut self, operand: &Operand) -> Result<Ref> {
        match operand {
            Operand::Register(register) | Operand::NotRegister(register) => match self.homes[*register as usize] {
                Home::Predicate(at) if matches!(operand, Operand::NotRegister(_)) => Ok(Ref::Raw(at | NOT)),
                Home::Predicate(at) => Ok(Ref::Raw(at)),
                _ => Err("a predicate operand is none".to_owned()),
            },
            // Predicate 0 may hold anything: a constant needs one of its own.
            Operand::Immediate(value) => {
                let at = self.predicates;
                self.predicates += 1;
                let draft = self.draft(crate::ops::compare::constant);
                self.push(Draft { d: Ref::Raw(at), imm: *value as i64, ..draft });
                Ok(Ref::Raw(at))
            }
            _ => Err(format!("operand {operand:?} is no predicate")),
        }
    }

    /// A predicate that is written.
    fn predicate_target(&mut self, operand: &Operand) -> Result<Ref> {
        match operand {
            Operand::Sink => Ok(Ref::Raw(0)),
            Operand::Register(_) => self.predicate(operand),
            _ => Err(format!("operand {operand:?} is no predicate to write")),
        }
    }

    /// Whether a register operand is a double; other operands take what the instruction has.
    fn is_wide(&self, operand: &Operand) -> Option<bool> {
        match operand {
            Operand::Register(register) => match self.homes[*register as usize] {
                Home::Double(_) => Some(true),
                Home::Word(_) => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn statement(&mut self, entry: &Entry, statement: &Statement) -> Result<()> {
        self.line = statement.line;
        self.guard = match statement.guard {
            None => None,
            Some((register, invert)) => match self.homes[register as usize] {
                Home::Predicate(at) => Some((u16::try_from(at).map_err(|_| "too many predicates")?, invert)),
                _ => return Err("the guard is no predicate".to_owned()),
            },
        };
        let parts: Vec<&str> = statement.mnemonic.split('.').collect();
        let operands = &statement.operands[..];
        match (parts[0], *parts.last().expect("split gives a part")) {
            ("barrier", _) if parts.get(1) == Some(&"cluster") => self.cluster_barrier(&parts, operands),
            ("mapa", _) => self.map_address(&parts, operands),
            ("bra" | "brx" | "ret" | "exit" | "bar" | "barrier" | "trap", _) => self.control(entry, statement, &parts),
            ("shfl" | "vote" | "match" | "activemask" | "redux" | "elect", _) => self.warp_wide(&parts, operands),
            (
                "membar" | "fence" | "prefetch" | "prefetchu" | "discard" | "applypriority" | "nanosleep" | "pmevent",
                _,
            ) => Ok(()),
            ("and" | "or" | "xor" | "not", "pred") => self.logic(parts[0], operands),
            ("mov", _) => self.mov(&parts, operands),
            ("cvta", _) => self.cvta(&parts, operands),
            ("cvt", _) => self.cvt(&statement.mnemonic, operands),
            ("setp", _) => self.setp(&parts, operands),
            ("set", _) => self.set(&parts, operands),
            ("selp", _) => self.selp(&parts, operands),
            ("slct", _) => self.slct(&parts, operands),
            ("isspacep", _) => self.is_space(&parts, operands),
            ("ld" | "ldu" | "st", _) => self.load_or_store(&parts, operands),
            ("atom" | "red", _) => self.atomic(&parts, operands),
            ("cp", _) if parts.get(2) == Some(&"bulk") => self.bulk_copy(&parts, operands),
            ("mbarrier", _) => self.mbarrier(&parts, operands),
            ("setmaxnreg", _) => self.set_registers(&parts, operands),
            ("wgmma", _) => self.wgmma(&statement.mnemonic, &parts, operands),
            ("cp", _) => self.async_copy(&parts, operands),
            ("ldmatrix" | "stmatrix" | "movmatrix", _) => self.move_matrix(&parts, operands),
            ("mma", _) => self.mma(&statement.mnemonic, operands),
            ("wmma", _) => self.wmma(&statement.mnemonic, &parts, operands),
            _ => self.arithmetic(&statement.mnemonic, operands),
        }
    }
}

fn count(operands: &[Operand], allowed: std::ops::RangeInclusive<usize>) -> Result<()> {
    if allowed.contains(&operands.len()) {
        Ok(())
    } else {
        Err(format!("{} operands, expected {allowed:?}", operands.len()))
    }
}

fn unknown<T>() -> Result<T> {
    Err("this instruction is not implemented".to_owned())
}
