//! The same conditions on an integer in many settings: one number, and counting, adding, filtering and searching in a list.

use super::super::draw::Draw;
use super::super::family::{BASE, Choice, Family, Variant, case};
use super::{INT, NUMBERS};

const PREDICATES: &[Variant] = &[
    ("even", "even", "{x} % 2 == 0"),
    ("odd", "odd", "{x} % 2 == 1"),
    ("positive", "positive", "{x} > 0"),
    ("negative", "negative", "{x} < 0"),
    ("large", "greater than {k}", "{x} > {k}"),
    ("small", "less than {k}", "{x} < {k}"),
    ("divisible", "divisible by {k}", "{x} % {k} == 0"),
];

/// What the code of `PREDICATES` decides; Python's `%` has the sign of its right side.
fn holds(choice: &Choice, x: i64) -> bool {
    match choice.variant {
        0 => x.rem_euclid(2) == 0,
        1 => x.rem_euclid(2) == 1,
        2 => x > 0,
        3 => x < 0,
        4 => x > choice.k,
        5 => x < choice.k,
        _ => x.rem_euclid(choice.k) == 0,
    }
}

/// Integers among which about half make the predicate true, with its edge among them: a bound that is off by one
/// must be seen.
fn numbers(draw: &mut Draw, choice: &Choice) -> Vec<i64> {
    let mut numbers = draw.ints(-9, 15);
    for x in &mut numbers {
        match choice.variant {
            2 | 3 if draw.one_in(4) => *x = 0,
            4 | 5 if draw.one_in(2) => *x = choice.k + draw.int(-1, 1),
            6 if draw.one_in(2) => *x = choice.k * draw.int(1, 4),
            _ => {}
        }
    }
    numbers
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "test_number",
        functions: &["is_{id}", "check_{id}", "{id}_number", "test_{id}"],
        arguments: &[INT],
        constants: [3..=9, 2..=9, 2..=9],
        variants: PREDICATES,
        subject: "{a}",
        tasks: &["Return True if {a} is {phrase}.", "Check whether {a} is {phrase}.", "Tell if {a} is {phrase}."],
        body: &["return {code}"],
        case: |draw, choice| {
            let x = numbers(draw, choice)[0];
            case!(x => holds(choice, x))
        },
        ..BASE
    },
    Family {
        name: "sum_matching",
        functions: &["sum_{id}", "total_{id}", "add_{id}", "{id}_sum"],
        arguments: &[NUMBERS],
        constants: [3..=9, 2..=9, 2..=9],
        variants: PREDICATES,
        tasks: &[
            "Return the sum of the {a} that are {phrase}.",
            "Add up the {a} that are {phrase}.",
            "Compute the total of all {a} that are {phrase}.",
        ],
        body: &["total = 0", "for x in {a}:", "    if {code}:", "        total += x", "return total"],
        case: |draw, choice| {
            let numbers = numbers(draw, choice);
            let total: i64 = numbers.iter().filter(|&&x| holds(choice, x)).sum();
            case!(numbers => total)
        },
        ..BASE
    },
    Family {
        name: "count_matching",
        functions: &["count_{id}", "number_of_{id}", "how_many_{id}", "{id}_count"],
        arguments: &[NUMBERS],
        constants: [3..=9, 2..=9, 2..=9],
        variants: PREDICATES,
        tasks: &[
            "Count the {a} that are {phrase}.",
            "Return how many {a} are {phrase}.",
            "Return the number of {a} that are {phrase}.",
        ],
        body: &["count = 0", "for x in {a}:", "    if {code}:", "        count += 1", "return count"],
        case: |draw, choice| {
            let numbers = numbers(draw, choice);
            let count = numbers.iter().filter(|&&x| holds(choice, x)).count();
            case!(numbers => count)
        },
        ..BASE
    },
    Family {
        name: "filter_matching",
        functions: &["filter_{id}", "keep_{id}", "select_{id}", "only_{id}"],
        arguments: &[NUMBERS],
        constants: [3..=9, 2..=9, 2..=9],
        variants: PREDICATES,
        tasks: &[
            "Return a list of the {a} that are {phrase}.",
            "Keep only the {a} that are {phrase}.",
            "Select the {a} that are {phrase}.",
        ],
        body: &["return [x for x in {a} if {code}]"],
        case: |draw, choice| {
            let numbers = numbers(draw, choice);
            let kept: Vec<i64> = numbers.iter().copied().filter(|&x| holds(choice, x)).collect();
            case!(numbers => kept)
        },
        ..BASE
    },
    Family {
        name: "any_matching",
        functions: &["any_{id}", "has_{id}", "contains_{id}", "some_{id}"],
        arguments: &[NUMBERS],
        constants: [3..=9, 2..=9, 2..=9],
        variants: PREDICATES,
        tasks: &[
            "Return True if any of the {a} is {phrase}.",
            "Check whether at least one of the {a} is {phrase}.",
            "Tell if some of the {a} are {phrase}.",
        ],
        body: &["return any({code} for x in {a})"],
        case: |draw, choice| {
            let mut numbers = numbers(draw, choice);
            if draw.one_in(2) {
                numbers.retain(|&x| !holds(choice, x));
            }
            let found = numbers.iter().any(|&x| holds(choice, x));
            case!(numbers => found)
        },
        ..BASE
    },
    Family {
        name: "all_matching",
        functions: &["all_{id}", "are_all_{id}", "every_{id}", "only_{id}"],
        arguments: &[NUMBERS],
        constants: [3..=9, 2..=9, 2..=9],
        variants: PREDICATES,
        tasks: &[
            "Return True if all {a} are {phrase}.",
            "Check whether every one of the {a} is {phrase}.",
            "Tell if all of the {a} are {phrase}.",
        ],
        body: &["return all({code} for x in {a})"],
        case: |draw, choice| {
            let mut numbers = numbers(draw, choice);
            if draw.one_in(2) {
                numbers.retain(|&x| holds(choice, x));
            }
            let all = numbers.iter().all(|&x| holds(choice, x));
            case!(numbers => all)
        },
        ..BASE
    },
    Family {
        name: "first_matching",
        functions: &["first_{id}", "find_{id}", "search_{id}", "find_first_{id}"],
        arguments: &[NUMBERS],
        constants: [3..=9, 2..=9, 2..=9],
        variants: PREDICATES,
        tasks: &[
            "Return the first of the {a} that is {phrase}, or None.",
            "Find the first of the {a} that is {phrase}, or None.",
            "Search the {a} for the first one that is {phrase}.",
        ],
        body: &["for x in {a}:", "    if {code}:", "        return x", "return None"],
        case: |draw, choice| {
            let mut numbers = numbers(draw, choice);
            if draw.one_in(4) {
                numbers.retain(|&x| !holds(choice, x));
            }
            let first = numbers.iter().copied().find(|&x| holds(choice, x));
            case!(numbers => first)
        },
        ..BASE
    },
];
