//! What a family of exercises is, and how one exercise is made of it.

use super::draw::{Draw, hash_text};
use super::value::Value;
use std::ops::RangeInclusive;

/// One task with its wordings, names and constants, and an implementation in Rust that computes what Python must return.
///
/// Placeholders of `functions`, `tasks` and `body`: `{f}` the function's name, `{a}` `{b}` its arguments, `{k}` `{m}` `{j}` the
/// constants, `{l}` the letter, `{id}` `{phrase}` `{code}` the three parts of the variant; the variant's parts may
/// hold the others, and `{x}`, which is the family's `subject`.
pub(super) struct Family {
    pub name: &'static str,
    pub functions: &'static [&'static str],
    /// Alternatives for each argument.
    pub arguments: &'static [&'static [&'static str]],
    /// Ranges of `{k}`, `{m}` and `{j}`.
    pub constants: [RangeInclusive<i64>; 3],
    pub letters: &'static [&'static str],
    pub variants: &'static [Variant],
    /// What a variant's `{x}` stands for: a local variable of the body, or an argument.
    pub subject: &'static str,
    pub tasks: &'static [&'static str],
    /// Lines without the function's own indentation.
    pub body: &'static [&'static str],
    /// Random arguments with the expected result.
    pub case: fn(&mut Draw, &Choice) -> Case,
}

/// (part of the function's name, words of the task, code of the body)
pub(super) type Variant = (&'static str, &'static str, &'static str);

/// What the families leave out.
pub(super) const BASE: Family = Family {
    name: "",
    functions: &[],
    arguments: &[],
    constants: [2..=9, 2..=9, 2..=9],
    letters: &["a", "b", "e", "g", "l", "n", "o", "r", "s", "t"],
    variants: &[("", "", "")],
    subject: "x",
    tasks: &[],
    body: &[],
    case: |_, _| Case { arguments: Vec::new(), result: Value::None },
};

/// The choices that an expected result may depend on.
pub(super) struct Choice {
    pub k: i64,
    pub m: i64,
    pub j: i64,
    pub letter: &'static str,
    pub variant: usize,
}

/// One call and what it must return.
#[derive(Clone, PartialEq)]
pub(super) struct Case {
    pub arguments: Vec<Value>,
    pub result: Value,
}

/// `case!(argument, ... => result)`
macro_rules! case {
    ($($argument:expr),+ => $result:expr) => {
        $crate::data::exercises::family::Case {
            arguments: vec![$($crate::data::exercises::value::Value::from($argument)),+],
            result: $crate::data::exercises::value::Value::from($result),
        }
    };
}
pub(super) use case;

/// An exercise before it is known on which side of the split it falls.
pub(super) struct Draft {
    /// The `def` line; with the body it is what the split looks at.
    signature: String,
    body: String,
    /// What the docstring says, without the example.
    task: String,
    function: String,
    /// The first one is the docstring's example, where there is one.
    cases: Vec<Case>,
    has_example: bool,
}

/// Assertions an exercise.
const ASSERTIONS: usize = 4;
/// A docstring's example must stay short, since a document should.
const LONGEST_EXAMPLE: usize = 44;
/// One program in this many is held out of the training corpus.
const HELD_OUT_SHARE: u64 = 8;

impl Family {
    pub fn draft(&self, draw: &mut Draw) -> Draft {
        let constants = self.constants.each_ref().map(|range| draw.int(*range.start(), *range.end()));
        let choice = Choice {
            k: constants[0],
            m: constants[1],
            j: constants[2],
            letter: draw.pick(self.letters),
            variant: draw.below(self.variants.len()),
        };
        let arguments: Vec<&str> = self.arguments.iter().map(|names| draw.pick(names)).collect();
        let template = draw.pick(self.functions);
        let task = draw.pick(self.tasks);

        let fill = |text: &str| self.fill(text, &choice, &arguments);
        let function = fill(template);
        let body: String =
            self.body.iter().map(|line| format!("    {}\n", fill(line).replace("{f}", &function))).collect();
        let signature = format!("def {function}({}):", arguments.join(", "));
        let task = fill(task);
        let cases = self.cases(draw, &choice);
        let example_length = |case: &Case| case.call(&function).len() + case.result.to_string().len();
        // An interactive session prints nothing for None.
        let can_show = |case: &Case| example_length(case) <= LONGEST_EXAMPLE && case.result != Value::None;
        let has_example = draw.one_in(3) && cases.first().is_some_and(can_show);
        Draft { signature, task, body, function, cases, has_example }
    }

    fn fill(&self, text: &str, choice: &Choice, arguments: &[&str]) -> String {
        let (id, phrase, code) = self.variants[choice.variant];
        let mut filled = text.replace("{id}", id).replace("{phrase}", phrase).replace("{code}", code);
        filled = filled.replace("{x}", self.subject);
        for (placeholder, argument) in ["{a}", "{b}"].iter().zip(arguments) {
            filled = filled.replace(placeholder, argument);
        }
        for (placeholder, constant) in [("{k}", choice.k), ("{m}", choice.m), ("{j}", choice.j)] {
            filled = filled.replace(placeholder, &constant.to_string());
        }
        filled.replace("{l}", choice.letter)
    }

    /// An example and the assertions, all of them different calls. No lazy body may pass the assertions.
    fn cases(&self, draw: &mut Draw, choice: &Choice) -> Vec<Case> {
        // Far more than are needed (tested); the bound makes the loop end for certain.
        const ATTEMPTS: usize = 500;
        let mut cases: Vec<Case> = Vec::with_capacity(ASSERTIONS + 1);
        for _ in 0..ATTEMPTS {
            let case = (self.case)(draw, choice);
            if cases.iter().any(|known| known.arguments == case.arguments) {
                continue;
            }
            cases.push(case);
            if cases.len() > ASSERTIONS {
                if !lazy_body_passes(&cases[1..]) {
                    break;
                }
                cases.pop();
            }
        }
        cases
    }
}

/// Whether a body that returns a constant, or one of its arguments as it is, would pass.
fn lazy_body_passes(cases: &[Case]) -> bool {
    let Some(first) = cases.first() else { return true };
    let constant = cases.iter().all(|case| case.result == first.result);
    let echo = |i: usize| cases.iter().all(|case| case.result == case.arguments[i]);
    constant || (0..first.arguments.len()).any(echo)
}

impl Case {
    fn call(&self, function: &str) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(Value::to_string).collect();
        format!("{function}({})", arguments.join(", "))
    }
}

impl Draft {
    /// Whether this program is kept out of every training corpus. The decision is its `def` line's and its body's alone: a
    /// held-out exercise is no trained one with another wording or another example.
    pub fn is_held_out(&self) -> bool {
        hash_text(&format!("{}\n{}", self.signature, self.body)).is_multiple_of(HELD_OUT_SHARE)
    }

    pub fn finish(self, family: &'static str) -> super::Exercise {
        let Self { signature, task, body, function, cases, has_example } = self;
        let prompt = match cases.first() {
            Some(example) if has_example => {
                let call = example.call(&function);
                let result = &example.result;
                format!("{signature}\n    \"\"\"{task}\n\n    >>> {call}\n    {result}\n    \"\"\"\n")
            }
            _ => format!("{signature}\n    \"\"\"{task}\"\"\"\n"),
        };
        let assertion = |case: &Case| match &case.result {
            result @ (Value::None | Value::Bool(_)) => format!("assert {} is {result}\n", case.call(&function)),
            result => format!("assert {} == {result}\n", case.call(&function)),
        };
        let tests = cases.iter().skip(1).map(assertion).collect();
        super::Exercise { family, prompt, solution: body, tests }
    }
}
