//! Tokens to entries: parameters, variables, registers, labels and statements (PTX ISA, chapters "Directives" and
//! "State Spaces, Types, and Variables"). Instructions are not looked at here; `lower` does that.

use std::collections::HashMap;

use crate::lex::{Token, number, tokens};
use crate::syntax::{Class, Entry, Module, Operand, Register, Statement, Variable};

/// # Errors
/// What was expected and found, and the line.
pub fn parse(text: &str) -> Result<Module, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, scopes: Vec::new() };
    parser.module()
}

/// The registers that one scope declares: by name, and by prefix and count (`%r<8>`).
#[derive(Default)]
struct Scope {
    id: usize,
    named: HashMap<String, Register>,
    ranges: HashMap<String, (Register, u32)>,
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    scopes: Vec<Scope>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).map_or("", |token| token.text)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |token| token.line)
    }

    fn next(&mut self) -> Result<Token<'a>, String> {
        let token = *self.tokens.get(self.at).ok_or("the text ends within a statement")?;
        self.at += 1;
        Ok(token)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.peek() == text && self.at < self.tokens.len();
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.take(text) { Ok(()) } else { Err(self.unexpected(text)) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        format!("line {}: expected {wanted}, found {:?}", self.line(), self.peek())
    }

    fn skip_line(&mut self) {
        let line = self.line();
        while self.at < self.tokens.len() && self.tokens[self.at].line == line {
            self.at += 1;
        }
    }

    fn skip_past(&mut self, text: &str) -> Result<(), String> {
        while self.next()?.text != text {}
        Ok(())
    }

    fn skip_braces(&mut self) -> Result<(), String> {
        self.skip_past("{")?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()?.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64, String> {
        let token = self.next()?;
        number(token.text).ok_or(format!("line {}: expected a number, found {:?}", token.line, token.text))
    }

    fn module(&mut self) -> Result<Module, String> {
        let mut module = Module::default();
        while self.at < self.tokens.len() {
            match self.peek() {
                ".version" | ".target" | ".address_size" | ".file" | ".loc" => self.skip_line(),
                ".section" => self.skip_braces()?,
                ".pragma" | ".alias" => self.skip_past(";")?,
                ".extern" | ".visible" | ".weak" | ".common" => self.at += 1,
                ".shared" | ".global" | ".const" | ".local" => {
                    let variable = self.variable()?;
                    self.expect(";")?;
                    module.variables.push(variable);
                }
                ".entry" => {
                    let entry = self.entry()?;
                    module.entries.push(entry);
                }
                // A call to it is an unknown instruction, which says so when the caller is lowered.
                ".func" => self.function()?,
                _ => return Err(self.unexpected("a directive")),
            }
        }
        Ok(module)
    }

    /// Skips a function, or a prototype, which ends in a semicolon.
    fn function(&mut self) -> Result<(), String> {
        loop {
            match self.peek() {
                "{" => return self.skip_braces(),
                ";" => return self.skip_past(";"),
                _ => self.at += 1,
            }
            if self.at >= self.tokens.len() {
                return Err(self.unexpected("a function's body"));
            }
        }
    }

    /// `.space .align 4 .b8 name[104] = {...}`, without the semicolon.
    fn variable(&mut self) -> Result<Variable, String> {
        let space = self.next()?.text.trim_start_matches('.').to_owned();
        let (mut align, mut width, mut vector) = (0, 1, 1);
        while self.peek().starts_with('.') {
            match self.next()?.text {
                ".align" => align = self.number()? as usize,
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                // A parameter's `.ptr .global .align 4` describes what it points to.
                ".ptr" => {
                    while self.peek().starts_with('.') {
                        if self.next()?.text == ".align" {
                            self.number()?;
                        }
                    }
                }
                text => width = type_bytes(text.trim_start_matches('.')).unwrap_or(width),
            }
        }
        let name = self.next()?.text.to_owned();
        let element = width * vector;
        let (mut bytes, mut open) = (element, false);
        while self.take("[") {
            if self.peek() == "]" {
                open = true;
            } else {
                bytes *= self.number()? as usize;
            }
            self.expect("]")?;
        }
        let mut initial = Vec::new();
        if self.take("=") {
            self.initialiser(width, &mut initial)?;
        }
        if open {
            bytes = initial.len();
        }
        Ok(Variable { space, name, align: align.max(element), bytes, initial })
    }

    fn initialiser(&mut self, width: usize, to: &mut Vec<u8>) -> Result<(), String> {
        let mut depth = 0;
        loop {
            match self.peek() {
                "{" => depth += 1,
                "}" => depth -= 1,
                "," => {}
                _ => {
                    let negative = self.take("-");
                    let value = self.number()?;
                    let value = if negative { value.wrapping_neg() } else { value };
                    to.extend_from_slice(&value.to_le_bytes()[..width]);
                    if depth == 0 {
                        return Ok(());
                    }
                    continue;
                }
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn entry(&mut self) -> Result<Entry, String> {
        self.expect(".entry")?;
        let mut entry = Entry { name: self.next()?.text.to_owned(), ..Entry::default() };
        if self.take("(") {
            while !self.take(")") {
                entry.parameters.push(self.variable()?);
                self.take(",");
            }
        }
        // .maxntid and its like: limits that the driver would check.
        while self.peek() != "{" {
            if self.next()?.text == ".reqnctapercluster" {
                entry.cluster = self.number()? as u32;
                while self.take(",") {
                    if self.number()? != 1 {
                        return Err(self.unexpected("a cluster along x"));
                    }
                }
            }
        }
        self.scopes.clear();
        self.body(&mut entry)?;
        Ok(entry)
    }

    fn body(&mut self, entry: &mut Entry) -> Result<(), String> {
        loop {
            match self.peek() {
                "{" => {
                    self.at += 1;
                    let id = entry.parents.len();
                    entry.parents.push(self.scopes.last().map_or(0, |scope| scope.id));
                    self.scopes.push(Scope { id, ..Scope::default() });
                }
                "}" => {
                    self.at += 1;
                    self.scopes.pop();
                    if self.scopes.is_empty() {
                        return Ok(());
                    }
                }
                ";" => self.at += 1,
                ".loc" | ".file" => self.skip_line(),
                ".pragma" => self.skip_past(";")?,
                ".reg" => self.registers(entry)?,
                ".shared" | ".local" | ".const" | ".global" | ".param" => {
                    let variable = self.variable()?;
                    self.expect(";")?;
                    entry.variables.push(variable);
                }
                _ => self.statement(entry)?,
            }
        }
    }

    fn registers(&mut self, entry: &mut Entry) -> Result<(), String> {
        self.expect(".reg")?;
        let mut kind = self.next()?.text;
        while self.peek().starts_with('.') {
            kind = self.next()?.text;
        }
        let class = match kind {
            ".pred" => Class::Predicate,
            ".b128" => Class::Quad,
            _ => match type_bytes(kind.trim_start_matches('.')) {
                Some(8) => Class::Double,
                Some(_) => Class::Word,
                None => return Err(self.unexpected("a register type")),
            },
        };
        loop {
            let name = self.next()?.text.to_owned();
            let first = entry.classes.len() as Register;
            if self.take("<") {
                let count = self.number()? as u32;
                self.expect(">")?;
                let scope = self.scopes.last_mut().expect("a body has a scope");
                scope.ranges.insert(name, (first, count));
                entry.classes.extend(std::iter::repeat_n(class, count as usize));
            } else {
                let scope = self.scopes.last_mut().expect("a body has a scope");
                scope.named.insert(name, first);
                entry.classes.push(class);
            }
            if !self.take(",") {
                return self.expect(";");
            }
        }
    }

    fn register(&self, name: &str) -> Option<Register> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (prefix, index) = name.split_at(name.len() - digits);
        self.scopes.iter().rev().find_map(|scope| {
            scope.named.get(name).copied().or_else(|| {
                let (first, count) = scope.ranges.get(prefix)?;
                let index = index.parse::<u32>().ok().filter(|index| index < count)?;
                Some(first + index)
            })
        })
    }

    fn statement(&mut self, entry: &mut Entry) -> Result<(), String> {
        let line = self.line();
        let scope = self.scopes.last().map_or(0, |scope| scope.id);
        let guard = if self.take("@") {
            let negated = self.take("!");
            let name = self.next()?.text;
            Some((self.register(name).ok_or(format!("line {line}: unknown predicate {name}"))?, negated))
        } else {
            None
        };
        let word = self.next()?;
        if !word.is_word() {
            return Err(format!("line {line}: expected an instruction, found {:?}", word.text));
        }
        if self.take(":") {
            if self.take(".branchtargets") {
                let mut targets = Vec::new();
                while !self.take(";") {
                    targets.push(self.next()?.text.to_owned());
                    self.take(",");
                }
                entry.tables.insert((word.text.to_owned(), scope), targets);
            } else {
                entry.labels.insert((word.text.to_owned(), scope), entry.statements.len());
            }
            return Ok(());
        }
        let mut operands = Vec::new();
        while !self.take(";") {
            // A call's parentheses; the instruction itself is refused later, with its name.
            if self.take("(") || self.take(")") || self.take(",") {
                continue;
            }
            operands.push(self.operand()?);
        }
        entry.statements.push(Statement { guard, mnemonic: word.text.to_owned(), operands, line, scope });
        Ok(())
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let line = self.line();
        if self.take("{") {
            let mut parts = Vec::new();
            while !self.take("}") {
                parts.push(self.operand()?);
                self.take(",");
            }
            return Ok(Operand::Vector(parts));
        }
        if self.take("[") {
            let base = self.operand()?;
            if self.take("]") {
                return Ok(match base {
                    Operand::Name(name, offset) => Operand::Address(Box::new(Operand::Name(name, 0)), offset),
                    base => Operand::Address(Box::new(base), 0),
                });
            }
            if self.peek() == "," {
                let mut parts = vec![base];
                while self.take(",") {
                    parts.push(self.operand()?);
                }
                self.expect("]")?;
                return Ok(Operand::TensorAddress(parts));
            }
            let offset = self.offset()?;
            self.expect("]")?;
            return Ok(Operand::Address(Box::new(base), offset));
        }
        if self.take("!") {
            let name = self.next()?.text;
            let register = self.register(name).ok_or(format!("line {line}: unknown predicate {name}"))?;
            return Ok(Operand::NotRegister(register));
        }
        if self.take("-") {
            return Ok(Operand::Immediate(self.number()?.wrapping_neg()));
        }
        let token = self.next()?;
        if token.is_number() {
            let value = number(token.text).ok_or(format!("line {line}: {:?} is no number", token.text))?;
            return Ok(Operand::Immediate(value));
        }
        if !token.is_word() {
            return Err(format!("line {line}: expected an operand, found {:?}", token.text));
        }
        let operand = match self.register(token.text) {
            Some(register) => Operand::Register(register),
            None if token.text == "_" => Operand::Sink,
            None => {
                let offset = if self.peek() == "+" { self.offset()? } else { 0 };
                Operand::Name(token.text.to_owned(), offset)
            }
        };
        if self.take("|") {
            return Ok(Operand::Pair(Box::new(operand), Box::new(self.operand()?)));
        }
        Ok(operand)
    }

    /// `+8`, `-8` or, as NVVM prints it, `+-8`.
    fn offset(&mut self) -> Result<i64, String> {
        let plus = self.take("+");
        let minus = self.take("-");
        if !plus && !minus {
            return Err(self.unexpected("an offset"));
        }
        let value = self.number()? as i64;
        Ok(if minus { value.wrapping_neg() } else { value })
    }
}

/// Bytes of a fundamental type; `None` for anything else.
pub fn type_bytes(name: &str) -> Option<usize> {
    match name {
        "b8" | "u8" | "s8" => Some(1),
        "b16" | "u16" | "s16" | "f16" | "bf16" => Some(2),
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => Some(4),
        "b64" | "u64" | "s64" | "f64" | "f32x2" => Some(8),
        "b128" => Some(16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_with_all_kinds_of_lines() {
        let module = parse(
            r#".version 8.8
            .target sm_80
            .address_size 64
            .extern .shared .align 16 .b8 pool[];
            .global .align 4 .u32 table[2] = {7, -1};
            .visible .entry k(
                .param .u64 .ptr .global .align 4 k_0,
                .param .align 8 .b8 k_1[24]
            ) .maxntid 64, 1, 1
            {
                .reg .pred %p<3>; .reg .b32 %r<5>; .reg .b64 %rd<2>;
                .loc 1 18 0, function_name $L, inlined_at 1 2 3
                ld.param.u64 %rd1, [k_0+-8];
            $L1: @!%p1 bra $L1; // comment
                { .reg .b16 lo, hi; mov.b32 {lo, hi}, %r1; L: bra L; }
                setp.lt.and.u32 %p1|%p2, %r1, 0x10, !%p2;
                .pragma "nounroll";
                ret;
            }"#,
        )
        .unwrap();
        assert_eq!(module.variables[1].initial, [7, 0, 0, 0, 255, 255, 255, 255]);
        let entry = &module.entries[0];
        assert_eq!((entry.parameters[1].align, entry.parameters[1].bytes), (8, 24));
        let mnemonics: Vec<&str> = entry.statements.iter().map(|s| s.mnemonic.as_str()).collect();
        assert_eq!(mnemonics, ["ld.param.u64", "bra", "mov.b32", "bra", "setp.lt.and.u32", "ret"]);
        assert_eq!(entry.statements[1].guard, Some((1, true)));
        assert_eq!(entry.label("$L1", 0), Some(1));
        assert_eq!(entry.label("L", entry.statements[3].scope), Some(3));
        assert_eq!(entry.label("L", 0), None);
        let address = Operand::Address(Box::new(Operand::Name("k_0".to_owned(), 0)), -8);
        assert_eq!(entry.statements[0].operands[1], address);
        assert_eq!(entry.statements[4].operands[3], Operand::NotRegister(2));
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse(".visible .entry k()\n{\n @%q bra L;\n}").unwrap_err();
        assert!(error.contains("line 3") && error.contains("%q"), "{error}");
    }
}
