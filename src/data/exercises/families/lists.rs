//! Lists: what a list is turned into.

use super::super::family::{BASE, Family, case};
use super::{NUMBERS, OTHER_NUMBERS, WORDS};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "transform_each",
        functions: &["{id}_each", "{id}_all", "{id}_{a}", "map_{id}"],
        arguments: &[NUMBERS],
        variants: &[
            ("multiply", "multiplied by {k}", "x * {k}"),
            ("increase", "increased by {k}", "x + {k}"),
            ("decrease", "decreased by {k}", "x - {k}"),
            ("square", "squared", "x * x"),
            ("negate", "negated", "-x"),
        ],
        tasks: &[
            "Return a list of the {a}, each {phrase}.",
            "Return the {a} with every element {phrase}.",
            "Build a list with each of the {a} {phrase}.",
        ],
        body: &["return [{code} for x in {a}]"],
        case: |draw, choice| {
            let (numbers, k) = (draw.ints(-9, 15), choice.k);
            let mapped: Vec<i64> = numbers.iter().map(|&x| [x * k, x + k, x - k, x * x, -x][choice.variant]).collect();
            case!(numbers => mapped)
        },
        ..BASE
    },
    Family {
        name: "sort_list",
        functions: &["sort_{id}", "order_{id}", "sorted_{id}", "arrange_{id}"],
        arguments: &[NUMBERS],
        variants: &[("up", "smallest to largest", ""), ("down", "largest to smallest", ", reverse=True")],
        tasks: &[
            "Return the {a} sorted from {phrase}.",
            "Sort the {a} from {phrase}.",
            "Put the {a} in order from {phrase}.",
        ],
        body: &["return sorted({a}{code})"],
        case: |draw, choice| {
            let numbers = draw.ints(-9, 30);
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            if choice.variant == 1 {
                sorted.reverse();
            }
            case!(numbers => sorted)
        },
        ..BASE
    },
    Family {
        name: "reverse_list",
        functions: &["reverse_list", "reverse_{a}", "reversed_list", "flip_{a}", "turn_around"],
        arguments: &[NUMBERS],
        tasks: &[
            "Return the list {a} in reverse order.",
            "Reverse the list {a}.",
            "Return the items of {a} from last to first.",
            "Turn the list {a} around.",
        ],
        body: &["return {a}[::-1]"],
        case: |draw, _| {
            let numbers = draw.ints(0, 30);
            let reversed: Vec<i64> = numbers.iter().rev().copied().collect();
            case!(numbers => reversed)
        },
        ..BASE
    },
    Family {
        name: "cut_list",
        functions: &["{id}_{k}", "{id}_part", "{id}_{a}", "{id}_items"],
        arguments: &[NUMBERS],
        constants: [1..=4, 2..=9, 2..=9],
        variants: &[
            ("first", "the first {k} items of {a}", ":{k}"),
            ("last", "the last {k} items of {a}", "-{k}:"),
            ("drop", "{a} without the first {k} items", "{k}:"),
            ("trim", "{a} without the last {k} items", ":-{k}"),
        ],
        tasks: &["Return {phrase}.", "Give back {phrase}.", "Use a slice to get {phrase}."],
        body: &["return {a}[{code}]"],
        case: |draw, choice| {
            let numbers = draw.ints(0, 30);
            let near = (choice.k as usize).min(numbers.len());
            let (first, rest) = numbers.split_at(near);
            let (start, last) = numbers.split_at(numbers.len() - near);
            let cut = [first, last, rest, start][choice.variant].to_vec();
            case!(numbers => cut)
        },
        ..BASE
    },
    Family {
        name: "every_kth",
        functions: &["every_{k}", "every_kth", "skip_items", "take_every", "sample_{a}"],
        arguments: &[NUMBERS],
        constants: [2..=5, 2..=9, 2..=9],
        tasks: &[
            "Return every item of {a} in steps of {k}.",
            "Take the items of {a} in steps of {k}.",
            "Go through {a} in steps of {k} and return the items.",
        ],
        body: &["return {a}[::{k}]"],
        case: |draw, choice| {
            let numbers = draw.ints(0, 30);
            let kept: Vec<i64> = numbers.iter().step_by(choice.k as usize).copied().collect();
            case!(numbers => kept)
        },
        ..BASE
    },
    Family {
        name: "running_total",
        functions: &["running_total", "running_sum", "cumulative_sum", "partial_sums", "accumulate"],
        arguments: &[NUMBERS],
        tasks: &[
            "Return the running totals of {a}.",
            "Return a list of the cumulative sums of {a}.",
            "Build the list of partial sums of {a}.",
            "For each item of {a}, give the sum so far.",
        ],
        body: &[
            "total = 0",
            "result = []",
            "for x in {a}:",
            "    total += x",
            "    result.append(total)",
            "return result",
        ],
        case: |draw, _| {
            let numbers = draw.ints(-5, 15);
            let totals: Vec<i64> = numbers
                .iter()
                .scan(0, |total, x| {
                    *total += x;
                    Some(*total)
                })
                .collect();
            case!(numbers => totals)
        },
        ..BASE
    },
    Family {
        name: "combine_pairwise",
        functions: &["{id}_lists", "{id}_pairs", "pairwise_{id}", "{id}_elements"],
        arguments: &[&["first", "left", "a", "xs", "numbers"], &["second", "right", "b", "ys", "others"]],
        variants: &[("add", "sums", "+"), ("subtract", "differences", "-"), ("multiply", "products", "*")],
        tasks: &[
            "Return the {phrase} of the pairs from {a} and {b}.",
            "Return a list of the pairwise {phrase} of {a} and {b}.",
            "Go through {a} and {b} together and return the {phrase}.",
        ],
        body: &["return [x {code} y for x, y in zip({a}, {b})]"],
        case: |draw, choice| {
            let left = draw.ints(-5, 12);
            let right: Vec<i64> = left.iter().map(|_| draw.int(0, 9)).collect();
            let combine = |(x, y): (&i64, &i64)| [x + y, x - y, x * y][choice.variant];
            let combined: Vec<i64> = left.iter().zip(&right).map(combine).collect();
            case!(left, right => combined)
        },
        ..BASE
    },
    Family {
        name: "unique",
        functions: &["unique", "remove_duplicates", "distinct", "unique_{a}", "without_repeats"],
        arguments: &[NUMBERS],
        tasks: &[
            "Return the {a} without duplicates, in order.",
            "Remove the duplicates from {a} and keep the order.",
            "Return a list of the different {a}, in order.",
            "Keep only the first copy of each of the {a}.",
        ],
        body: &["result = []", "for x in {a}:", "    if x not in result:", "        result.append(x)", "return result"],
        case: |draw, _| {
            let numbers = draw.ints(1, 4);
            let mut unique = Vec::new();
            for &x in &numbers {
                if !unique.contains(&x) {
                    unique.push(x);
                }
            }
            case!(numbers => unique)
        },
        ..BASE
    },
    Family {
        name: "flatten",
        functions: &["flatten", "flatten_{a}", "unpack", "merge_rows", "to_flat_list"],
        arguments: &[&["rows", "matrix", "lists", "groups", "grid", "nested"]],
        tasks: &[
            "Flatten {a} into one list.",
            "Return one list of all numbers in {a}.",
            "Join the parts of {a} into a single list.",
            "Turn the nested list {a} into a flat one.",
        ],
        body: &["return [x for row in {a} for x in row]"],
        case: |draw, _| {
            let length = draw.int(2, 3);
            let rows: Vec<Vec<i64>> = (0..length).map(|_| draw.ints(0, 9)).map(|row| row[..2].to_vec()).collect();
            let flat = rows.concat();
            case!(rows => flat)
        },
        ..BASE
    },
    Family {
        name: "remove_value",
        functions: &["remove_{k}", "remove_value", "without_{k}", "drop_value"],
        arguments: &[NUMBERS],
        constants: [1..=9, 2..=9, 2..=9],
        tasks: &[
            "Return the {a} without any {k}.",
            "Remove every {k} from {a}.",
            "Return a list of the {a} that are not {k}.",
        ],
        body: &["return [x for x in {a} if x != {k}]"],
        case: |draw, choice| {
            let mut numbers = draw.ints(0, 12);
            for x in &mut numbers {
                if draw.one_in(3) {
                    *x = choice.k;
                }
            }
            let kept: Vec<i64> = numbers.iter().copied().filter(|&x| x != choice.k).collect();
            case!(numbers => kept)
        },
        ..BASE
    },
    Family {
        name: "concatenate",
        functions: &["concatenate", "join_lists", "combine", "append_all", "merge_lists"],
        arguments: &[NUMBERS, OTHER_NUMBERS],
        tasks: &[
            "Return a list with all of {a} and then all of {b}.",
            "Join the lists {a} and {b}.",
            "Concatenate {a} and {b}.",
        ],
        body: &["return {a} + {b}"],
        case: |draw, _| {
            let (left, right) = (draw.ints(0, 20), draw.ints(0, 20));
            let joined = [left.as_slice(), right.as_slice()].concat();
            case!(left, right => joined)
        },
        ..BASE
    },
    Family {
        name: "map_words",
        functions: &["{id}_{a}", "all_{id}", "get_{id}", "{id}_list"],
        arguments: &[WORDS],
        variants: &[
            ("lengths", "the length of each of the {a}", "len(w)"),
            ("upper", "each of the {a} in upper case", "w.upper()"),
            ("initials", "the first letter of each of the {a}", "w[0]"),
            ("reversed", "each of the {a} reversed", "w[::-1]"),
        ],
        tasks: &["Return a list of {phrase}.", "Build a list with {phrase}.", "Make a list that holds {phrase}."],
        body: &["return [{code} for w in {a}]"],
        case: |draw, choice| {
            let words = draw.words();
            let lengths: Vec<usize> = words.iter().map(|w| w.len()).collect();
            let map = |w: &&str| match choice.variant {
                1 => w.to_uppercase(),
                2 => w[..1].to_string(),
                _ => w.chars().rev().collect(),
            };
            let mapped: Vec<String> = words.iter().map(map).collect();
            if choice.variant == 0 { case!(words => lengths) } else { case!(words => mapped) }
        },
        ..BASE
    },
    Family {
        name: "filter_words",
        functions: &["{id}_{a}", "filter_{id}", "keep_{id}", "select_{id}"],
        arguments: &[WORDS],
        constants: [4..=5, 2..=9, 2..=9],
        variants: &[
            ("longer", "are longer than {k}", "len(w) > {k}"),
            ("shorter", "are shorter than {k}", "len(w) < {k}"),
            ("containing", "contain '{l}'", "\"{l}\" in w"),
            ("starting", "start with '{l}'", "w.startswith(\"{l}\")"),
        ],
        tasks: &[
            "Return a list of the {a} that {phrase}.",
            "Keep only the {a} that {phrase}.",
            "Select the {a} that {phrase}.",
        ],
        body: &["return [w for w in {a} if {code}]"],
        case: |draw, choice| {
            let (mut words, k) = (draw.words(), choice.k as usize);
            if choice.variant == 3 {
                let starting = words[0].to_string();
                words.retain(|word| !word.starts_with(choice.letter));
                let mut words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
                words.insert(draw.below(words.len() + 1), format!("{}{starting}", choice.letter));
                let kept: Vec<String> = words.iter().filter(|word| word.starts_with(choice.letter)).cloned().collect();
                return case!(words => kept);
            }
            let keep = |w: &&&str| [w.len() > k, w.len() < k, w.contains(choice.letter)][choice.variant];
            let kept: Vec<&str> = words.iter().filter(keep).copied().collect();
            case!(words => kept)
        },
        ..BASE
    },
];
