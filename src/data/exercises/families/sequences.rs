//! Lists: what is found in one.

use super::super::family::{BASE, Family, case};
use super::{NUMBERS, WORDS};

/// Names of a value that is looked for.
const TARGET: &[&str] = &["target", "goal", "wanted", "key", "number"];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "extreme_by_loop",
        functions: &["{id}", "find_{id}", "{id}_of_{a}", "get_{id}"],
        arguments: &[NUMBERS],
        variants: &[("largest", "largest", ">"), ("smallest", "smallest", "<")],
        tasks: &[
            "Return the {phrase} of the {a}.",
            "Find the {phrase} item of the list {a}.",
            "Loop over {a} to find the {phrase} one.",
        ],
        body: &["best = {a}[0]", "for x in {a}:", "    if x {code} best:", "        best = x", "return best"],
        case: |draw, choice| {
            let numbers = draw.ints(-9, 40);
            let (low, high) = numbers.iter().fold((i64::MAX, i64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            case!(numbers => [high, low][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "spread",
        functions: &["spread", "span", "value_range", "max_difference", "range_of_{a}"],
        arguments: &[NUMBERS],
        tasks: &[
            "Return the largest minus the smallest of the {a}.",
            "Compute the difference between the largest and smallest of {a}.",
            "Find the spread of the {a}.",
            "Return the span of the {a}, from smallest to largest.",
        ],
        body: &["return max({a}) - min({a})"],
        case: |draw, _| {
            let numbers = draw.ints(-9, 40);
            let (low, high) = numbers.iter().fold((i64::MAX, i64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            case!(numbers => high - low)
        },
        ..BASE
    },
    Family {
        name: "product_of_list",
        functions: &["product", "multiply_all", "product_of_{a}", "total_product", "multiply_list"],
        arguments: &[NUMBERS],
        tasks: &[
            "Return the product of the {a}.",
            "Multiply all {a} together.",
            "Compute the product of all items of {a}.",
            "Loop over {a} and multiply them.",
        ],
        body: &["result = 1", "for x in {a}:", "    result *= x", "return result"],
        case: |draw, _| {
            let numbers = draw.ints(-3, 6);
            let product: i64 = numbers.iter().product();
            case!(numbers => product)
        },
        ..BASE
    },
    Family {
        name: "average_of_list",
        functions: &["average", "mean", "average_of_{a}", "list_average", "compute_mean"],
        arguments: &[NUMBERS],
        tasks: &[
            "Return the average of the {a}.",
            "Compute the mean of the {a}.",
            "Return the sum of {a} divided by their count.",
            "Find the average of the list {a}.",
        ],
        body: &["return sum({a}) / len({a})"],
        case: |draw, _| {
            let numbers = draw.ints(0, 20);
            let mean = numbers.iter().sum::<i64>() as f64 / numbers.len() as f64;
            case!(numbers => mean)
        },
        ..BASE
    },
    Family {
        name: "index_of",
        functions: &["index_of", "find_index", "position", "search", "linear_search"],
        arguments: &[NUMBERS, TARGET],
        tasks: &[
            "Return the index of {b} in {a}, or -1.",
            "Find the position of {b} in {a}, or -1 if it is missing.",
            "Search {a} for {b} and return its index, or -1.",
        ],
        body: &["for i, x in enumerate({a}):", "    if x == {b}:", "        return i", "return -1"],
        case: |draw, _| {
            let numbers = draw.ints(0, 20);
            let target = if draw.one_in(4) { draw.int(0, 20) } else { numbers[draw.below(numbers.len())] };
            let index = numbers.iter().position(|&x| x == target).map_or(-1, |i| i as i64);
            case!(numbers, target => index)
        },
        ..BASE
    },
    Family {
        name: "contains",
        functions: &["contains", "is_in", "has_item", "includes", "is_member"],
        arguments: &[NUMBERS, TARGET],
        tasks: &["Return True if {b} is in {a}.", "Check whether {a} has {b}.", "Tell if {b} is one of the {a}."],
        body: &["return {b} in {a}"],
        case: |draw, _| {
            let numbers = draw.ints(0, 20);
            let target = if draw.one_in(2) { draw.int(0, 20) } else { numbers[draw.below(numbers.len())] };
            let found = numbers.contains(&target);
            case!(numbers, target => found)
        },
        ..BASE
    },
    Family {
        name: "count_value",
        functions: &["count_value", "count_{b}", "occurrences", "frequency", "times_in_list"],
        arguments: &[NUMBERS, TARGET],
        tasks: &[
            "Return how often {b} occurs in {a}.",
            "Count how many times {b} is in {a}.",
            "Count the copies of {b} in {a}.",
        ],
        body: &["return {a}.count({b})"],
        case: |draw, _| {
            let numbers = draw.ints(1, 4);
            let target = draw.int(1, 4);
            let count = numbers.iter().filter(|&&x| x == target).count();
            case!(numbers, target => count)
        },
        ..BASE
    },
    Family {
        name: "longest_word",
        functions: &["{id}_word", "find_{id}", "get_{id}", "{id}_of_{a}"],
        arguments: &[WORDS],
        variants: &[("longest", "longest", "max"), ("shortest", "shortest", "min")],
        tasks: &[
            "Return the {phrase} of the {a}.",
            "Find the {phrase} of the {a}.",
            "Return the one of the {a} that is {phrase}.",
        ],
        body: &["return {code}({a}, key=len)"],
        case: |draw, choice| {
            let words = draw.words();
            let rank = |w: &str| if choice.variant == 0 { w.len() } else { usize::MAX - w.len() };
            // The first of equals, as in Python.
            let found = words.iter().fold(words[0], |best, w| if rank(w) > rank(best) { w } else { best });
            case!(words => found)
        },
        ..BASE
    },
];
