//! Loops over integers.

use super::super::family::{BASE, Family, case};
use super::{INT, OTHER_INT};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "sum_to_n",
        functions: &["sum_of_{id}", "sum_{id}", "total_of_{id}", "add_{id}"],
        arguments: &[INT],
        variants: &[("numbers", "numbers", "i"), ("squares", "squares", "i ** 2"), ("cubes", "cubes", "i ** 3")],
        tasks: &[
            "Return the sum of the {phrase} from 1 to {a}.",
            "Add up the {phrase} from 1 to {a}.",
            "Compute the sum of all {phrase} from 1 to {a}.",
        ],
        body: &["total = 0", "for i in range(1, {a} + 1):", "    total += {code}", "return total"],
        case: |draw, choice| {
            let n = draw.int(0, 12);
            let total: i64 = (1..=n).map(|i| i.pow(choice.variant as u32 + 1)).sum();
            case!(n => total)
        },
        ..BASE
    },
    Family {
        name: "sum_of_multiples",
        functions: &["sum_multiples", "sum_of_multiples", "add_multiples", "multiples_total"],
        arguments: &[&["n", "limit", "end", "bound", "top", "stop"]],
        tasks: &[
            "Return the sum of the multiples of {k} below {a}.",
            "Add up all multiples of {k} below {a}.",
            "Compute the total of the multiples of {k} below {a}.",
        ],
        body: &["total = 0", "for i in range({a}):", "    if i % {k} == 0:", "        total += i", "return total"],
        case: |draw, choice| {
            let n = draw.int(1, 50);
            let total: i64 = (0..n).filter(|i| i % choice.k == 0).sum();
            case!(n => total)
        },
        ..BASE
    },
    Family {
        name: "list_multiples",
        functions: &["multiples", "multiples_of_{k}", "list_multiples", "times_table", "table_of_{k}"],
        arguments: &[INT],
        tasks: &[
            "Return a list of the first {a} multiples of {k}.",
            "List the first {a} multiples of {k}.",
            "Build the list of the first {a} multiples of {k}.",
        ],
        body: &["return [{k} * i for i in range(1, {a} + 1)]"],
        case: |draw, choice| {
            let n = draw.int(0, 7);
            case!(n => (1..=n).map(|i| choice.k * i).collect::<Vec<i64>>())
        },
        ..BASE
    },
    Family {
        name: "list_powers",
        functions: &["powers", "powers_of_{k}", "list_powers", "first_powers"],
        arguments: &[INT],
        tasks: &[
            "Return a list of the first {a} powers of {k}.",
            "List the first {a} powers of {k}, starting with 1.",
            "Build the list of the first {a} powers of {k}.",
        ],
        body: &["return [{k} ** i for i in range({a})]"],
        case: |draw, choice| {
            let n = draw.int(0, 6);
            case!(n => (0..n).map(|i| choice.k.pow(i as u32)).collect::<Vec<i64>>())
        },
        ..BASE
    },
    Family {
        name: "count_up_or_down",
        functions: &["count_{id}", "{id}_list", "list_{id}", "numbers_{id}"],
        arguments: &[INT],
        variants: &[("up", "from 1 up to {a}", "1, {a} + 1"), ("down", "from {a} down to 1", "{a}, 0, -1")],
        tasks: &[
            "Return a list of the numbers {phrase}.",
            "List the numbers {phrase}.",
            "Count {phrase} and return the numbers in a list.",
        ],
        body: &["return list(range({code}))"],
        case: |draw, choice| {
            let n = draw.int(0, 8);
            let numbers: Vec<i64> = if choice.variant == 0 { (1..=n).collect() } else { (1..=n).rev().collect() };
            case!(n => numbers)
        },
        ..BASE
    },
    Family {
        name: "digits_by_loop",
        functions: &["{id}_digits", "digit_{id}", "{id}_of_digits", "get_{id}_of_digits"],
        arguments: &[INT],
        variants: &[
            ("sum", "Return the sum of the digits of {a}", "total += {a} % 10"),
            ("count", "Count the digits of {a}", "total += 1"),
        ],
        tasks: &["{phrase}.", "{phrase} with a loop.", "{phrase} by dividing by 10.", "{phrase} one at a time."],
        body: &["total = 0", "while {a} > 0:", "    {code}", "    {a} //= 10", "return total"],
        case: |draw, choice| {
            let digits = draw.int(1, 5);
            let n = (0..digits).fold(draw.int(1, 9), |n, _| 10 * n + draw.int(0, 9));
            let sum: i64 = n.to_string().bytes().map(|digit| i64::from(digit - b'0')).sum();
            case!(n => [sum, n.to_string().len() as i64][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "divisors",
        functions: &["divisors", "find_divisors", "list_divisors", "factors", "factors_of"],
        arguments: &[INT],
        tasks: &[
            "Return a list of the divisors of {a}.",
            "Find all divisors of {a}.",
            "List the numbers that divide {a}.",
            "Return all factors of {a}.",
        ],
        body: &["return [i for i in range(1, {a} + 1) if {a} % i == 0]"],
        case: |draw, _| {
            let n = draw.int(1, 36);
            case!(n => (1..=n).filter(|i| n % i == 0).collect::<Vec<i64>>())
        },
        ..BASE
    },
    Family {
        name: "prime",
        functions: &["is_prime", "check_prime", "prime", "test_prime", "has_no_divisor"],
        arguments: &[INT],
        tasks: &[
            "Return True if {a} is a prime number.",
            "Check whether {a} is prime.",
            "Tell if {a} is a prime.",
            "Decide whether {a} is a prime number.",
        ],
        body: &[
            "if {a} < 2:",
            "    return False",
            "for i in range(2, {a}):",
            "    if {a} % i == 0:",
            "        return False",
            "return True",
        ],
        case: |draw, _| {
            let n = if draw.one_in(3) { draw.int(0, 3) } else { draw.int(4, 40) };
            case!(n => n >= 2 && (2..n).all(|i| n % i != 0))
        },
        ..BASE
    },
    Family {
        name: "greatest_common_divisor",
        functions: &["gcd", "common_divisor", "greatest_divisor", "euclid", "find_gcd"],
        arguments: &[INT, OTHER_INT],
        tasks: &[
            "Return the greatest common divisor of {a} and {b}.",
            "Compute the greatest common divisor of {a} and {b}.",
            "Find the largest number that divides {a} and {b}.",
        ],
        body: &["while {b}:", "    {a}, {b} = {b}, {a} % {b}", "return {a}"],
        case: |draw, _| {
            let shared = draw.int(1, 6);
            let (n, m) = (shared * draw.int(1, 9), shared * draw.int(1, 9));
            let (mut x, mut y) = (n, m);
            while y != 0 {
                (x, y) = (y, x % y);
            }
            case!(n, m => x)
        },
        ..BASE
    },
    Family {
        name: "count_divisions",
        functions: &["count_divisions", "how_many_divisions", "division_steps", "count_steps"],
        arguments: &[INT],
        tasks: &[
            "Count how often {a} can be divided by {k} while it is at least {k}.",
            "Divide {a} by {k} while it is at least {k} and count the steps.",
            "Return the number of times {a} is divided by {k} to get below {k}.",
        ],
        body: &["count = 0", "while {a} >= {k}:", "    {a} //= {k}", "    count += 1", "return count"],
        case: |draw, choice| {
            let n = draw.int(1, 200);
            let (mut rest, mut count) = (n, 0_i64);
            while rest >= choice.k {
                rest /= choice.k;
                count += 1;
            }
            case!(n => count)
        },
        ..BASE
    },
    Family {
        name: "fibonacci",
        functions: &["fibonacci", "fib", "nth_fibonacci", "get_fibonacci", "fibonacci_number"],
        arguments: &[INT],
        tasks: &[
            "Return the Fibonacci number at position {a}.",
            "Compute the Fibonacci number at position {a}.",
            "Find the Fibonacci number with index {a}.",
            "Return the Fibonacci number with index {a}, where 0 gives 0.",
        ],
        body: &["x, y = 0, 1", "for _ in range({a}):", "    x, y = y, x + y", "return x"],
        case: |draw, _| {
            let n = draw.int(0, 15);
            let (x, _) = (0..n).fold((0_i64, 1), |(x, y), _| (y, x + y));
            case!(n => x)
        },
        ..BASE
    },
    Family {
        name: "repeat_update",
        functions: &["grow", "repeat_{id}", "{id}_times", "{id}_again"],
        arguments: &[&["start", "balance", "level", "n", "amount"], &["times", "steps", "rounds", "years", "days"]],
        variants: &[("add", "Add {k} to {a}", "+="), ("multiply", "Multiply {a} by {k}", "*=")],
        tasks: &[
            "{phrase}, {b} times.",
            "{phrase} and repeat this {b} times.",
            "{phrase} once for each of {b} and return the result.",
        ],
        body: &["for _ in range({b}):", "    {a} {code} {k}", "return {a}"],
        case: |draw, choice| {
            let (start, times) = (draw.int(1, 9), draw.int(0, 5));
            let added = start + choice.k * times;
            case!(start, times => [added, start * choice.k.pow(times as u32)][choice.variant])
        },
        ..BASE
    },
];
