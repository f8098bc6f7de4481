//! Comparisons and branches.

use super::super::family::{BASE, Family, case};
use super::{INT, OTHER_INT};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "larger_of_two",
        functions: &["{id}", "{id}_of_two", "get_{id}", "choose_{id}", "find_{id}"],
        arguments: &[INT, OTHER_INT],
        variants: &[("larger", "larger", ">"), ("smaller", "smaller", "<")],
        tasks: &[
            "Return the {phrase} of {a} and {b}.",
            "Compare {a} and {b} and return the {phrase} one.",
            "Find the {phrase} of the two numbers {a} and {b}.",
        ],
        body: &["if {a} {code} {b}:", "    return {a}", "return {b}"],
        case: |draw, choice| {
            let (n, m) = (draw.int(-9, 30), draw.int(-9, 30));
            case!(n, m => [n.max(m), n.min(m)][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "sign",
        functions: &["sign", "sign_of", "describe_sign", "get_sign", "sign_name"],
        arguments: &[INT],
        tasks: &[
            "Return 'positive', 'negative' or 'zero' for {a}.",
            "Describe the sign of {a} as 'positive', 'negative' or 'zero'.",
            "Tell if {a} is 'positive', 'negative' or 'zero'.",
        ],
        body: &["if {a} > 0:", "    return \"positive\"", "if {a} < 0:", "    return \"negative\"", "return \"zero\""],
        case: |draw, _| {
            // Zero must be among the assertions often enough to matter.
            let n = if draw.one_in(3) { 0 } else { draw.int(-20, 20) };
            case!(n => ["negative", "zero", "positive"][(n.signum() + 1) as usize])
        },
        ..BASE
    },
    Family {
        name: "label_by_threshold",
        functions: &["label", "classify", "describe", "label_{a}", "check_{a}"],
        arguments: &[&["score", "height", "speed", "price", "level", "age"]],
        constants: [3..=20, 2..=9, 2..=9],
        variants: &[
            ("", "high", "low"),
            ("", "big", "small"),
            ("", "good", "bad"),
            ("", "fast", "slow"),
            ("", "pass", "fail"),
            ("", "full", "empty"),
        ],
        tasks: &[
            "Return '{phrase}' if {a} is greater than {k}, otherwise '{code}'.",
            "Return '{phrase}' when {a} is greater than {k} and '{code}' when it is not.",
            "If {a} is greater than {k} return '{phrase}', else return '{code}'.",
        ],
        body: &["if {a} > {k}:", "    return \"{phrase}\"", "return \"{code}\""],
        case: |draw, choice| {
            let n = choice.k + draw.int(-2, 2);
            let labels = [
                ("high", "low"),
                ("big", "small"),
                ("good", "bad"),
                ("fast", "slow"),
                ("pass", "fail"),
                ("full", "empty"),
            ];
            let (above, below) = labels[choice.variant];
            case!(n => if n > choice.k { above } else { below })
        },
        ..BASE
    },
    Family {
        name: "clamp",
        functions: &["{id}", "{id}_value", "{id}_at_{k}", "apply_{id}"],
        arguments: &[INT],
        constants: [2..=20, 2..=9, 2..=9],
        variants: &[("floor", "at least", "max"), ("cap", "at most", "min")],
        tasks: &[
            "Return {a}, but {phrase} {k}.",
            "Limit {a} so that it is {phrase} {k}.",
            "Make sure that {a} is {phrase} {k}.",
        ],
        body: &["return {code}({a}, {k})"],
        case: |draw, choice| {
            let n = choice.k + draw.int(-4, 4);
            case!(n => [n.max(choice.k), n.min(choice.k)][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "in_range",
        functions: &["in_range", "is_between", "is_valid", "is_inside", "within"],
        arguments: &[INT],
        constants: [1..=8, 9..=20, 2..=9],
        tasks: &[
            "Return True if {a} is between {k} and {m}.",
            "Check whether {a} is from {k} to {m}.",
            "Check if {a} is at least {k} and at most {m}.",
        ],
        body: &["return {k} <= {a} <= {m}"],
        case: |draw, choice| {
            let edge = if draw.one_in(2) { choice.k } else { choice.m };
            let n = edge + draw.int(-1, 1);
            case!(n => choice.k <= n && n <= choice.m)
        },
        ..BASE
    },
    Family {
        name: "both_or_either",
        functions: &["{id}_above", "{id}_large", "check_{id}", "are_{id}_above"],
        arguments: &[INT, OTHER_INT],
        variants: &[("both", "both {a} and {b} are", "and"), ("either", "{a} or {b} is", "or")],
        tasks: &[
            "Return True if {phrase} greater than {k}.",
            "Check whether {phrase} greater than {k}.",
            "Tell if {phrase} greater than {k}.",
        ],
        body: &["return {a} > {k} {code} {b} > {k}"],
        case: |draw, choice| {
            let (n, m) = (choice.k + draw.int(-1, 2), choice.k + draw.int(-1, 2));
            let (first, second) = (n > choice.k, m > choice.k);
            case!(n, m => [first && second, first || second][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "price_by_age",
        functions: &["ticket_price", "price_for", "entry_fee", "get_price", "fare"],
        arguments: &[&["age", "years", "n", "person_age"]],
        constants: [2..=9, 6..=18, 10..=20],
        tasks: &[
            "Return {k} if {a} is less than {m}, otherwise {j}.",
            "The price is {k} if {a} is less than {m}, else {j}.",
            "Charge {k} when {a} is less than {m} and {j} otherwise.",
        ],
        body: &["if {a} < {m}:", "    return {k}", "return {j}"],
        case: |draw, choice| {
            let n = choice.m + draw.int(-2, 2);
            case!(n => if n < choice.m { choice.k } else { choice.j })
        },
        ..BASE
    },
    Family {
        name: "word_for_multiples",
        functions: &["{id}", "{id}_game", "say_{id}", "{id}_number"],
        arguments: &[INT],
        variants: &[
            ("fizz", "fizz", ""),
            ("buzz", "buzz", ""),
            ("clap", "clap", ""),
            ("jump", "jump", ""),
            ("boom", "boom", ""),
        ],
        tasks: &[
            "Return '{phrase}' if {a} is divisible by {k}, otherwise {a}.",
            "Return '{phrase}' for a multiple of {k}, otherwise {a} itself.",
            "If {a} is divisible by {k} return '{phrase}', else return {a}.",
        ],
        body: &["if {a} % {k} == 0:", "    return \"{phrase}\"", "return {a}"],
        case: |draw, choice| {
            let n = if draw.one_in(2) { choice.k * draw.int(1, 9) } else { draw.int(1, 60) };
            if n % choice.k == 0 {
                case!(n => ["fizz", "buzz", "clap", "jump", "boom"][choice.variant])
            } else {
                case!(n => n)
            }
        },
        ..BASE
    },
];
