//! Dictionaries.

use super::super::draw::Draw;
use super::super::family::{BASE, Family, case};
use super::super::value::Value;
use super::{NUMBERS, TABLE, WORDS};

/// 2 to 4 entries with different keys and different values, so that no order of them matters.
fn entries(draw: &mut Draw, low: i64, high: i64) -> Vec<(&'static str, i64)> {
    let length = draw.int(2, 4) as usize;
    let mut entries: Vec<(&'static str, i64)> = Vec::with_capacity(length);
    while entries.len() < length {
        let (key, value) = (draw.word(), draw.int(low, high));
        if entries.iter().all(|&(k, v)| k != key && v != value) {
            entries.push((key, value));
        }
    }
    entries
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "count_occurrences",
        functions: &["count_each", "count_{a}", "frequencies", "tally", "histogram"],
        arguments: &[&["items", "words", "letters", "votes", "colors", "names"]],
        tasks: &[
            "Return a dictionary that counts each of the {a}.",
            "Count how often each of the {a} occurs.",
            "Build a dictionary from each of the {a} to its count.",
            "Tally the {a} in a dictionary.",
        ],
        body: &["counts = {}", "for x in {a}:", "    counts[x] = counts.get(x, 0) + 1", "return counts"],
        case: |draw, _| {
            let choices = [draw.word(), draw.word(), draw.word()];
            let length = draw.int(3, 5);
            let items: Vec<&str> = (0..length).map(|_| draw.pick(&choices)).collect();
            let mut counts: Vec<(&str, i64)> = Vec::new();
            for &item in &items {
                match counts.iter_mut().find(|(key, _)| *key == item) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((item, 1)),
                }
            }
            case!(items => Value::dict(counts))
        },
        ..BASE
    },
    Family {
        name: "lookup_with_default",
        functions: &["lookup", "get_value", "find_value", "get_or_default", "read_{a}"],
        arguments: &[TABLE, &["key", "name", "item", "word"]],
        constants: [0..=9, 2..=9, 2..=9],
        tasks: &[
            "Return the value of {b} in {a}, or {k} if it is missing.",
            "Look up {b} in {a} and return {k} if it is not there.",
            "Get {b} from {a} with {k} as the default.",
        ],
        body: &["return {a}.get({b}, {k})"],
        case: |draw, choice| {
            let entries = entries(draw, 10, 40);
            let key = if draw.one_in(3) { draw.word() } else { entries[0].0 };
            let value = entries.iter().find(|entry| entry.0 == key).map_or(choice.k, |entry| entry.1);
            case!(Value::dict(entries), key => value)
        },
        ..BASE
    },
    Family {
        name: "invert_dictionary",
        functions: &["invert", "swap_keys", "invert_{a}", "reverse_lookup", "flip_dictionary"],
        arguments: &[TABLE],
        tasks: &[
            "Return a dictionary with the keys and values of {a} swapped.",
            "Swap the keys and values of {a}.",
            "Build a dictionary from the values of {a} to its keys.",
            "Invert the dictionary {a}.",
        ],
        body: &["return {v: k for k, v in {a}.items()}"],
        case: |draw, _| {
            let entries = entries(draw, 1, 30);
            let inverted = Value::dict(entries.iter().map(|&(key, value)| (value, key)));
            case!(Value::dict(entries) => inverted)
        },
        ..BASE
    },
    Family {
        name: "reduce_values",
        functions: &["{id}_{a}", "{id}_of_values", "get_{id}", "find_{id}"],
        arguments: &[TABLE],
        variants: &[("total", "sum", "sum"), ("largest", "largest", "max"), ("smallest", "smallest", "min")],
        tasks: &[
            "Return the {phrase} of the values in {a}.",
            "Find the {phrase} of all values of {a}.",
            "Compute the {phrase} of the values of the dictionary {a}.",
        ],
        body: &["return {code}({a}.values())"],
        case: |draw, choice| {
            let entries = entries(draw, 1, 30);
            let values = || entries.iter().map(|entry| entry.1);
            let sum: i64 = values().sum();
            let (low, high) = values().fold((i64::MAX, i64::MIN), |(low, high), x| (low.min(x), high.max(x)));
            case!(Value::dict(entries) => [sum, high, low][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "filter_dictionary",
        functions: &["filter_{a}", "{id}_{k}", "keep_{id}", "select_{id}"],
        arguments: &[TABLE],
        constants: [5..=20, 2..=9, 2..=9],
        variants: &[("above", "greater than {k}", ">"), ("below", "less than {k}", "<")],
        tasks: &[
            "Return the entries of {a} with values {phrase}.",
            "Keep the entries of {a} whose value is {phrase}.",
            "Select the entries of {a} with a value {phrase}.",
        ],
        body: &["return {k: v for k, v in {a}.items() if v {code} {k}}"],
        case: |draw, choice| {
            let mut entries = entries(draw, 1, 25);
            let has_edge = entries.iter().any(|entry| entry.1 == choice.k);
            if !has_edge && draw.one_in(2) {
                entries[0].1 = choice.k;
            }
            let keep = |entry: &(&str, i64)| [entry.1 > choice.k, entry.1 < choice.k][choice.variant];
            let kept = Value::dict(entries.iter().copied().filter(keep));
            case!(Value::dict(entries) => kept)
        },
        ..BASE
    },
    Family {
        name: "key_of_extreme",
        functions: &["{id}_key", "key_of_{id}", "{id}_in_{a}", "who_has_{id}"],
        arguments: &[TABLE],
        variants: &[("largest", "largest", "max"), ("smallest", "smallest", "min")],
        tasks: &[
            "Return the key of {a} with the {phrase} value.",
            "Find the key with the {phrase} value in {a}.",
            "Return the key that has the {phrase} value in {a}.",
        ],
        body: &["return {code}({a}, key={a}.get)"],
        case: |draw, choice| {
            let entries = entries(draw, 1, 40);
            let rank = |entry: &&(&str, i64)| if choice.variant == 0 { entry.1 } else { -entry.1 };
            let key = entries.iter().max_by_key(rank).map(|entry| entry.0);
            case!(Value::dict(entries) => key)
        },
        ..BASE
    },
    Family {
        name: "pair_up",
        functions: &["pair_up", "make_dictionary", "zip_lists", "to_dictionary", "build_table"],
        arguments: &[&["keys", "names", "words", "labels"], &["values", "numbers", "scores", "prices"]],
        tasks: &[
            "Return a dictionary from {a} to {b}.",
            "Pair up {a} and {b} in a dictionary.",
            "Build a dictionary with {a} as keys and {b} as values.",
        ],
        body: &["return dict(zip({a}, {b}))"],
        case: |draw, _| {
            let entries = entries(draw, 1, 30);
            let keys: Vec<&str> = entries.iter().map(|entry| entry.0).collect();
            let values: Vec<i64> = entries.iter().map(|entry| entry.1).collect();
            case!(keys, values => Value::dict(entries))
        },
        ..BASE
    },
    Family {
        name: "map_to_dictionary",
        functions: &["{id}_by_item", "{id}_table", "map_{id}", "{id}_of_{a}"],
        arguments: &[NUMBERS],
        variants: &[("squares", "square", "x * x"), ("doubles", "double", "x * 2"), ("halves", "half", "x / 2")],
        tasks: &[
            "Return a dictionary from each of the {a} to its {phrase}.",
            "Map each of the {a} to its {phrase} in a dictionary.",
            "Build a dictionary of the {a} and the {phrase} of each.",
        ],
        body: &["return {x: {code} for x in {a}}"],
        case: |draw, choice| {
            let values: Vec<i64> = entries(draw, 0, 20).iter().map(|entry| entry.1).collect();
            let map = |&x: &i64| match choice.variant {
                0 => (x, Value::from(x * x)),
                1 => (x, Value::from(x * 2)),
                _ => (x, Value::from(x as f64 / 2.0)),
            };
            let mapped = Value::dict(values.iter().map(map));
            case!(values => mapped)
        },
        ..BASE
    },
    Family {
        name: "word_lengths",
        functions: &["word_lengths", "length_table", "lengths_of_{a}", "map_lengths", "length_by_word"],
        arguments: &[WORDS],
        tasks: &[
            "Return a dictionary from each of the {a} to its length.",
            "Map each of the {a} to its length in a dictionary.",
            "Build a dictionary with the length of each of the {a}.",
        ],
        body: &["return {w: len(w) for w in {a}}"],
        case: |draw, _| {
            let words: Vec<&str> = entries(draw, 0, 20).iter().map(|entry| entry.0).collect();
            let lengths = Value::dict(words.iter().map(|w| (*w, w.len())));
            case!(words => lengths)
        },
        ..BASE
    },
];
