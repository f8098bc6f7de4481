//! Arithmetic in one expression.

use super::super::family::{BASE, Family, case};
use super::{INT, OTHER_INT};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "arithmetic_with_a_constant",
        functions: &["{id}_{k}", "{id}_constant", "{id}_fixed", "do_{id}"],
        arguments: &[INT],
        constants: [2..=20, 2..=9, 2..=9],
        variants: &[("add", "plus", "+"), ("subtract", "minus", "-"), ("multiply", "times", "*")],
        tasks: &["Return {a} {phrase} {k}.", "Compute {a} {phrase} {k}.", "Give back {a} {phrase} {k}."],
        body: &["return {a} {code} {k}"],
        case: |draw, choice| {
            let n = draw.int(-9, 40);
            case!(n => [n + choice.k, n - choice.k, n * choice.k][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "combine_two_numbers",
        functions: &["{id}_numbers", "get_{id}", "{id}_of_two", "find_{id}"],
        arguments: &[INT, OTHER_INT],
        variants: &[("sum", "sum", "+"), ("difference", "difference", "-"), ("product", "product", "*")],
        tasks: &[
            "Return the {phrase} of {a} and {b}.",
            "Compute the {phrase} of {a} and {b}.",
            "Find the {phrase} of {a} and {b}.",
        ],
        body: &["return {a} {code} {b}"],
        case: |draw, choice| {
            let (n, m) = (draw.int(-9, 30), draw.int(2, 12));
            case!(n, m => [n + m, n - m, n * m][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "average_of_two",
        functions: &["average", "mean", "middle", "average_of_two", "midpoint"],
        arguments: &[INT, OTHER_INT],
        tasks: &[
            "Return the average of {a} and {b}.",
            "Compute the mean of {a} and {b}.",
            "Return the number halfway between {a} and {b}.",
        ],
        body: &["return ({a} + {b}) / 2"],
        case: |draw, _| {
            let (n, m) = (draw.int(-9, 30), draw.int(0, 30));
            case!(n, m => (n + m) as f64 / 2.0)
        },
        ..BASE
    },
    Family {
        name: "linear_function",
        functions: &["linear", "scale_and_shift", "line_at", "transform", "evaluate"],
        arguments: &[INT],
        tasks: &[
            "Return {k} times {a} plus {m}.",
            "Multiply {a} by {k} and add {m}.",
            "Scale {a} by {k}, then shift it by {m}.",
        ],
        body: &["return {k} * {a} + {m}"],
        case: |draw, choice| {
            let n = draw.int(-9, 20);
            case!(n => choice.k * n + choice.m)
        },
        ..BASE
    },
    Family {
        name: "power",
        functions: &["{id}", "{id}_number", "compute_{id}", "{id}_of", "to_{id}"],
        arguments: &[INT],
        variants: &[("square", "square", "2"), ("cube", "cube", "3"), ("fourth", "fourth power", "4")],
        tasks: &["Return the {phrase} of {a}.", "Compute the {phrase} of {a}.", "Give the {phrase} of {a}."],
        body: &["return {a} ** {code}"],
        case: |draw, choice| {
            let n = draw.int(-5, 12);
            case!(n => n.pow(choice.variant as u32 + 2))
        },
        ..BASE
    },
    Family {
        name: "divide_whole",
        functions: &["{id}", "{id}_by_{k}", "get_{id}", "find_{id}"],
        arguments: &[INT],
        variants: &[("quotient", "whole quotient", "//"), ("remainder", "remainder", "%")],
        tasks: &[
            "Return the {phrase} of {a} divided by {k}.",
            "Divide {a} by {k} and return the {phrase}.",
            "Find the {phrase} when {a} is divided by {k}.",
        ],
        body: &["return {a} {code} {k}"],
        case: |draw, choice| {
            let n = draw.int(0, 99);
            case!(n => [n / choice.k, n % choice.k][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "percentage",
        functions: &["percent", "percentage", "percent_of", "take_percent", "tax"],
        arguments: &[&["amount", "price", "cost", "salary", "balance", "income"]],
        constants: [1..=20, 2..=9, 2..=9],
        tasks: &["Return {k} percent of {a}.", "Compute {k} percent of {a}.", "Calculate {k}% of {a}."],
        body: &["return {a} * {k} / 100"],
        case: |draw, choice| {
            let n = draw.int(1, 300);
            case!(n => (n * choice.k) as f64 / 100.0)
        },
        ..BASE
    },
    Family {
        name: "rectangle",
        functions: &["{id}", "rectangle_{id}", "get_{id}", "compute_{id}", "field_{id}"],
        arguments: &[&["width", "w", "base", "side"], &["height", "h", "length", "depth"]],
        variants: &[("area", "area", "{a} * {b}"), ("perimeter", "perimeter", "2 * ({a} + {b})")],
        tasks: &[
            "Return the {phrase} of a rectangle with sides {a} and {b}.",
            "Compute the {phrase} of a rectangle of {a} by {b}.",
            "Find the {phrase} of a field that is {a} by {b}.",
        ],
        body: &["return {code}"],
        case: |draw, choice| {
            let (w, h) = (draw.int(1, 20), draw.int(1, 20));
            case!(w, h => [w * h, 2 * (w + h)][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "convert_units",
        functions: &["{id}", "convert_{id}", "count_{id}", "get_{id}"],
        arguments: &[&["n", "amount", "count", "quantity", "number", "total"]],
        variants: &[
            ("hours_to_minutes", "hours to minutes", "60"),
            ("minutes_to_seconds", "minutes to seconds", "60"),
            ("days_to_hours", "days to hours", "24"),
            ("weeks_to_days", "weeks to days", "7"),
            ("years_to_months", "years to months", "12"),
            ("meters_to_centimeters", "meters to centimeters", "100"),
        ],
        tasks: &["Convert {a} from {phrase}.", "Change {a} from {phrase}.", "Return {a} converted from {phrase}."],
        body: &["return {a} * {code}"],
        case: |draw, choice| {
            let n = draw.int(1, 30);
            case!(n => n * [60, 60, 24, 7, 12, 100][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "distance_between",
        functions: &["distance", "gap", "absolute_difference", "distance_between", "how_far"],
        arguments: &[INT, OTHER_INT],
        tasks: &[
            "Return the absolute difference between {a} and {b}.",
            "Compute the distance between {a} and {b}.",
            "Find how far apart {a} and {b} are.",
        ],
        body: &["return abs({a} - {b})"],
        case: |draw, _| {
            let (n, m) = (draw.int(-9, 30), draw.int(-9, 30));
            case!(n, m => (n - m).abs())
        },
        ..BASE
    },
];
