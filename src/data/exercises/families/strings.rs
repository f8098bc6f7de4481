//! Strings.

use super::super::family::{BASE, Family, case};
use super::{TEXT, WORDS};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "repeat_text",
        functions: &["repeat", "repeat_{a}", "repeat_{k}", "copy_{a}"],
        arguments: &[TEXT],
        tasks: &["Return {a} repeated {k} times.", "Repeat {a} {k} times.", "Join {k} copies of {a} into one string."],
        body: &["return {a} * {k}"],
        case: |draw, choice| {
            let text = draw.word();
            case!(text => text.repeat(choice.k as usize))
        },
        ..BASE
    },
    Family {
        name: "greeting",
        functions: &["greet", "greeting", "make_greeting", "say_{id}", "greet_{a}"],
        arguments: &[&["name", "person", "user", "friend", "guest", "pupil"]],
        variants: &[
            ("hello", "Hello", ""),
            ("goodbye", "Goodbye", ""),
            ("welcome", "Welcome", ""),
            ("thanks", "Thanks", ""),
            ("sorry", "Sorry", ""),
        ],
        tasks: &[
            "Return '{phrase}, ' followed by {a}.",
            "Build a greeting from '{phrase}, ' and {a}.",
            "Greet {a} with '{phrase}, '.",
        ],
        body: &["return \"{phrase}, \" + {a}"],
        case: |draw, choice| {
            let name = draw.word();
            let greeting = ["Hello", "Goodbye", "Welcome", "Thanks", "Sorry"][choice.variant];
            case!(name => format!("{greeting}, {name}"))
        },
        ..BASE
    },
    Family {
        name: "letter_case",
        functions: &["{id}_{a}", "make_{id}", "to_{id}", "{id}_text"],
        arguments: &[TEXT],
        variants: &[
            ("upper", "upper case", "upper"),
            ("lower", "lower case", "lower"),
            ("title", "title case", "title"),
        ],
        tasks: &["Return {a} in {phrase}.", "Convert {a} to {phrase}.", "Write {a} in {phrase}."],
        body: &["return {a}.{code}()"],
        case: |draw, choice| {
            let shape = draw.below(3);
            let text = in_case(&draw.text(), shape);
            let result = in_case(&text.to_lowercase(), choice.variant);
            case!(text => result)
        },
        ..BASE
    },
    Family {
        name: "cut_text",
        functions: &["{id}_{k}", "{id}_part", "{id}_letters", "{id}_of_{a}"],
        arguments: &[TEXT],
        constants: [1..=5, 2..=9, 2..=9],
        variants: &[
            ("first", "the first {k} letters of {a}", ":{k}"),
            ("last", "the last {k} letters of {a}", "-{k}:"),
            ("drop", "{a} without its first {k} letters", "{k}:"),
            ("trim", "{a} without its last {k} letters", ":-{k}"),
        ],
        tasks: &["Return {phrase}.", "Give back {phrase}.", "Use a slice to get {phrase}."],
        body: &["return {a}[{code}]"],
        case: |draw, choice| {
            let text = draw.text();
            let near = (choice.k as usize).min(text.len());
            let (first, rest) = text.split_at(near);
            let (start, last) = text.split_at(text.len() - near);
            case!(text.as_str() => [first, last, rest, start][choice.variant])
        },
        ..BASE
    },
    Family {
        name: "reverse_text",
        functions: &["reverse", "reverse_{a}", "backwards", "flip", "mirror"],
        arguments: &[TEXT],
        tasks: &[
            "Return {a} reversed.",
            "Reverse the letters of {a}.",
            "Return {a} written backwards.",
            "Turn {a} around.",
        ],
        body: &["return {a}[::-1]"],
        case: |draw, _| {
            let text = draw.text();
            let reversed: String = text.chars().rev().collect();
            case!(text => reversed)
        },
        ..BASE
    },
    Family {
        name: "palindrome",
        functions: &["is_palindrome", "palindrome", "check_palindrome", "same_backwards", "is_mirrored"],
        arguments: &[TEXT],
        tasks: &[
            "Return True if {a} is a palindrome.",
            "Check whether {a} is a palindrome.",
            "Check if {a} reads the same backwards.",
            "Tell whether {a} is equal to its reverse.",
        ],
        body: &["return {a} == {a}[::-1]"],
        case: |draw, _| {
            let half: String = draw.word().chars().take(4).collect();
            let reversed: String = half.chars().rev().collect();
            let is_palindrome = draw.one_in(2) || half == reversed;
            case!(if is_palindrome { format!("{half}{reversed}") } else { half } => is_palindrome)
        },
        ..BASE
    },
    Family {
        name: "count_letter",
        functions: &["count_{l}", "count_letter", "letter_count", "how_many_{l}"],
        arguments: &[TEXT],
        tasks: &[
            "Count the letter '{l}' in {a}.",
            "Return how often '{l}' occurs in {a}.",
            "Return the number of times '{l}' is in {a}.",
        ],
        body: &["return {a}.count(\"{l}\")"],
        case: |draw, choice| {
            let text = draw.text();
            let count = text.matches(choice.letter).count();
            case!(text => count)
        },
        ..BASE
    },
    Family {
        name: "count_characters",
        functions: &["count_{id}", "{id}_in_{a}", "number_of_{id}", "how_many_{id}"],
        arguments: &[TEXT],
        variants: &[
            ("vowels", "vowels", "c in \"aeiou\""),
            ("digits", "digits", "c.isdigit()"),
            ("capitals", "capital letters", "c.isupper()"),
            ("spaces", "spaces", "c == \" \""),
        ],
        tasks: &[
            "Count the {phrase} in {a}.",
            "Return the number of {phrase} in {a}.",
            "Find how many {phrase} {a} has.",
        ],
        body: &["count = 0", "for c in {a}:", "    if {code}:", "        count += 1", "return count"],
        case: |draw, choice| {
            let text = mixed_text(draw);
            let count = text.chars().filter(|&c| is_of_kind(choice.variant, c)).count();
            case!(text => count)
        },
        ..BASE
    },
    Family {
        name: "keep_characters",
        functions: &["keep_{id}", "only_{id}", "extract_{id}", "select_{id}"],
        arguments: &[TEXT],
        variants: &[
            ("vowels", "vowels", "c in \"aeiou\""),
            ("digits", "digits", "c.isdigit()"),
            ("capitals", "capital letters", "c.isupper()"),
        ],
        tasks: &[
            "Return only the {phrase} of {a}.",
            "Keep only the {phrase} of {a}.",
            "Build a string of the {phrase} in {a}.",
        ],
        body: &["return \"\".join(c for c in {a} if {code})"],
        case: |draw, choice| {
            let text = mixed_text(draw);
            let kept: String = text.chars().filter(|&c| is_of_kind(choice.variant, c)).collect();
            case!(text => kept)
        },
        ..BASE
    },
    Family {
        name: "replace_letter",
        functions: &["replace_{l}", "replace_letter", "swap_letter", "change_{l}"],
        arguments: &[TEXT],
        variants: &[("", "x", ""), ("", "z", ""), ("", "-", ""), ("", "*", ""), ("", "_", "")],
        tasks: &[
            "Replace every '{l}' in {a} with '{phrase}'.",
            "Return {a} with every '{l}' replaced by '{phrase}'.",
            "Change each '{l}' of {a} to '{phrase}'.",
        ],
        body: &["return {a}.replace(\"{l}\", \"{phrase}\")"],
        case: |draw, choice| {
            let text = draw.text();
            let replaced = text.replace(choice.letter, ["x", "z", "-", "*", "_"][choice.variant]);
            case!(text => replaced)
        },
        ..BASE
    },
    Family {
        name: "edge_letter",
        functions: &["{id}_with_{l}", "{id}_with", "check_{id}", "{a}_{id}"],
        arguments: &[TEXT],
        variants: &[("starts", "starts", "startswith"), ("ends", "ends", "endswith")],
        tasks: &[
            "Return True if {a} {phrase} with '{l}'.",
            "Check whether {a} {phrase} with '{l}'.",
            "Tell if {a} {phrase} with the letter '{l}'.",
        ],
        body: &["return {a}.{code}(\"{l}\")"],
        case: |draw, choice| {
            let word = draw.word();
            let text = match (draw.one_in(2), choice.variant) {
                (true, 0) => format!("{}{word}", choice.letter),
                (true, _) => format!("{word}{}", choice.letter),
                (false, _) => word.to_string(),
            };
            let holds = [text.starts_with(choice.letter), text.ends_with(choice.letter)][choice.variant];
            case!(text => holds)
        },
        ..BASE
    },
    Family {
        name: "pick_word",
        functions: &["{id}_word", "get_{id}_word", "find_{id}", "take_{id}"],
        arguments: &[&["text", "sentence", "line", "phrase", "message", "title"]],
        variants: &[("first", "first", "0"), ("last", "last", "-1")],
        tasks: &[
            "Return the {phrase} word of {a}.",
            "Find the {phrase} word in {a}.",
            "Split {a} and return its {phrase} word.",
        ],
        body: &["return {a}.split()[{code}]"],
        case: |draw, choice| {
            let words = draw.words();
            let word = [words[0], words[words.len() - 1]][choice.variant];
            case!(words.join(" ") => word)
        },
        ..BASE
    },
    Family {
        name: "count_words",
        functions: &["count_words", "word_count", "number_of_words", "how_many_words", "words_in"],
        arguments: &[&["text", "sentence", "line", "phrase", "message", "title"]],
        tasks: &[
            "Count the words in {a}.",
            "Return the number of words in {a}.",
            "Find how many words {a} has.",
            "Split {a} and count its words.",
        ],
        body: &["return len({a}.split())"],
        case: |draw, _| {
            let (first, second) = (draw.text(), draw.text());
            let text = format!("{first} {second}");
            let count = text.split(' ').count();
            case!(text => count)
        },
        ..BASE
    },
    Family {
        name: "join_words",
        functions: &["join_{a}", "join_with_{id}", "combine_{a}", "link"],
        arguments: &[WORDS],
        variants: &[("dash", "-", ""), ("comma", ",", ""), ("plus", "+", ""), ("star", "*", ""), ("slash", "/", "")],
        tasks: &[
            "Join {a} with '{phrase}' between them.",
            "Return {a} as one string with '{phrase}' between them.",
            "Combine {a} into one string, separated by '{phrase}'.",
        ],
        body: &["return \"{phrase}\".join({a})"],
        case: |draw, choice| {
            let words = draw.words();
            let joined = words.join(["-", ",", "+", "*", "/"][choice.variant]);
            case!(words => joined)
        },
        ..BASE
    },
    Family {
        name: "surround_text",
        functions: &["surround", "wrap_{a}", "decorate", "frame", "add_{id}"],
        arguments: &[TEXT],
        variants: &[("stars", "*", ""), ("dashes", "-", ""), ("marks", "!", ""), ("hashes", "#", "")],
        tasks: &[
            "Put '{phrase}' before and after {a}.",
            "Surround {a} with '{phrase}' on both sides.",
            "Return {a} with '{phrase}' at both ends.",
        ],
        body: &["return \"{phrase}\" + {a} + \"{phrase}\""],
        case: |draw, choice| {
            let (text, mark) = (draw.text(), ["*", "-", "!", "#"][choice.variant]);
            let surrounded = format!("{mark}{text}{mark}");
            case!(text => surrounded)
        },
        ..BASE
    },
    Family {
        name: "compare_length",
        functions: &["is_{id}", "{id}_than_{k}", "check_{id}", "{id}_{a}"],
        arguments: &[TEXT],
        constants: [3..=9, 2..=9, 2..=9],
        variants: &[("long", "more than", ">"), ("short", "less than", "<"), ("exact", "exactly", "==")],
        tasks: &[
            "Return True if {a} has {phrase} {k} letters.",
            "Check whether {a} has {phrase} {k} letters.",
            "Tell if the length of {a} is {phrase} {k}.",
        ],
        body: &["return len({a}) {code} {k}"],
        case: |draw, choice| {
            let mut word = draw.word().repeat(3);
            word.truncate((choice.k + draw.int(-1, 1)) as usize);
            let length = word.len() as i64;
            case!(word => [length > choice.k, length < choice.k, length == choice.k][choice.variant])
        },
        ..BASE
    },
];

/// `text`, which is in lower case, in upper case (0), unchanged (1) or in title case (2), as `str.title` has it.
fn in_case(text: &str, case: usize) -> String {
    match case {
        0 => text.to_uppercase(),
        1 => text.to_string(),
        _ => text
            .split(' ')
            .map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..]))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// Words with a capital or a number here and there.
fn mixed_text(draw: &mut super::super::draw::Draw) -> String {
    let length = draw.int(1, 3);
    let parts = (0..length).map(|_| match draw.below(3) {
        0 => in_case(draw.word(), 2),
        1 => format!("{}{}", draw.word(), draw.int(0, 99)),
        _ => draw.word().to_string(),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Whether `c` is a vowel in lower case (0), a digit (1), a capital (2) or a space (3).
fn is_of_kind(kind: usize, c: char) -> bool {
    match kind {
        0 => "aeiou".contains(c),
        1 => c.is_ascii_digit(),
        2 => c.is_ascii_uppercase(),
        _ => c == ' ',
    }
}
