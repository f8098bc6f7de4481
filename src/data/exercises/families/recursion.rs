//! Functions that call themselves.

use super::super::family::{BASE, Family, case};
use super::{INT, NUMBERS, TEXT};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "factorial",
        functions: &["factorial", "fact", "compute_factorial", "factorial_of", "get_factorial"],
        arguments: &[INT],
        tasks: &[
            "Return the factorial of {a}.",
            "Compute the factorial of {a}.",
            "Return the product of the numbers from 1 to {a}.",
            "Compute the factorial of {a} with recursion.",
        ],
        body: &["if {a} <= 1:", "    return 1", "return {a} * {f}({a} - 1)"],
        case: |draw, _| {
            let n = draw.int(0, 10);
            case!(n => (1..=n).product::<i64>())
        },
        ..BASE
    },
    Family {
        name: "recursive_list_sum",
        functions: &["sum_list", "total", "add_all", "recursive_sum", "sum_{a}"],
        arguments: &[NUMBERS],
        tasks: &[
            "Return the sum of the {a} with recursion.",
            "Use recursion to add up the {a}.",
            "Add the first of the {a} to the sum of the rest.",
            "Compute the sum of the {a} recursively.",
        ],
        body: &["if not {a}:", "    return 0", "return {a}[0] + {f}({a}[1:])"],
        case: |draw, _| {
            let mut numbers = draw.ints(-9, 20);
            if draw.one_in(5) {
                numbers.clear();
            }
            let total: i64 = numbers.iter().sum();
            case!(numbers => total)
        },
        ..BASE
    },
    Family {
        name: "recursive_power",
        functions: &["power", "raise_to", "recursive_power", "exponentiate", "pow_of"],
        arguments: &[&["base", "n", "x", "number", "value"], &["exponent", "e", "times", "p", "power_of"]],
        tasks: &[
            "Return {a} to the power {b} with recursion.",
            "Use recursion to raise {a} to the power {b}.",
            "Compute {a} to the power {b} recursively.",
        ],
        body: &["if {b} == 0:", "    return 1", "return {a} * {f}({a}, {b} - 1)"],
        case: |draw, _| {
            let (base, exponent) = (draw.int(-3, 6), draw.int(0, 5));
            case!(base, exponent => base.pow(exponent as u32))
        },
        ..BASE
    },
    Family {
        name: "recursive_countdown",
        functions: &["countdown", "count_back", "down_to_one", "descend", "backward_list"],
        arguments: &[INT],
        tasks: &[
            "Return the countdown from {a} to 1 with recursion.",
            "Use recursion to list the numbers from {a} to 1.",
            "Build the countdown from {a} recursively.",
            "Put {a} before the countdown from one less.",
        ],
        body: &["if {a} == 0:", "    return []", "return [{a}] + {f}({a} - 1)"],
        case: |draw, _| {
            let n = draw.int(0, 8);
            case!(n => (1..=n).rev().collect::<Vec<i64>>())
        },
        ..BASE
    },
    Family {
        name: "recursive_reverse",
        functions: &["reverse", "recursive_reverse", "reverse_{a}", "backwards", "flip_{a}"],
        arguments: &[TEXT],
        tasks: &[
            "Return {a} reversed with recursion.",
            "Use recursion to reverse {a}.",
            "Reverse {a} recursively.",
            "Put the first letter of {a} after the reversed rest.",
        ],
        body: &["if {a} == \"\":", "    return \"\"", "return {f}({a}[1:]) + {a}[0]"],
        case: |draw, _| {
            let text = draw.text();
            let reversed: String = text.chars().rev().collect();
            case!(text => reversed)
        },
        ..BASE
    },
    Family {
        name: "recursive_digits",
        functions: &["{id}_digits", "digit_{id}", "recursive_{id}", "{id}_of_digits"],
        arguments: &[INT],
        variants: &[("sum", "Add up the digits of {a}", "{a} % 10"), ("count", "Count the digits of {a}", "1")],
        tasks: &["{phrase} with recursion.", "{phrase} recursively.", "{phrase} without a loop."],
        body: &["if {a} == 0:", "    return 0", "return {code} + {f}({a} // 10)"],
        case: |draw, choice| {
            let digits = draw.int(0, 5);
            let n = (0..digits).fold(draw.int(1, 9), |n, _| 10 * n + draw.int(0, 9));
            let sum: i64 = n.to_string().bytes().map(|digit| i64::from(digit - b'0')).sum();
            case!(n => [sum, n.to_string().len() as i64][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "recursive_steps",
        functions: &["sum_down", "step_sum", "add_down", "sum_in_steps"],
        arguments: &[INT],
        tasks: &[
            "Add {a}, {a} minus {k} and so on, while positive, with recursion.",
            "Use recursion to add the numbers from {a} down in steps of {k}.",
            "Return the sum of the numbers from {a} down in steps of {k}.",
        ],
        body: &["if {a} <= 0:", "    return 0", "return {a} + {f}({a} - {k})"],
        case: |draw, choice| {
            let n = draw.int(-2, 30);
            let total: i64 = (1..=n).rev().step_by(choice.k as usize).sum();
            case!(n => total)
        },
        ..BASE
    },
];
