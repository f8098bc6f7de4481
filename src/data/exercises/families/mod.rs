//! The families of tasks, by subject.

mod arithmetic;
mod conditionals;
mod dictionaries;
mod lists;
mod loops;
mod predicates;
mod recursion;
mod sequences;
mod strings;

use super::family::Family;

pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    let subjects = [
        arithmetic::FAMILIES,
        conditionals::FAMILIES,
        strings::FAMILIES,
        predicates::FAMILIES,
        lists::FAMILIES,
        sequences::FAMILIES,
        loops::FAMILIES,
        dictionaries::FAMILIES,
        recursion::FAMILIES,
    ];
    subjects.into_iter().flatten()
}

// Names of arguments. They are disjoint from the bodies' local names (x, y, i, c, w, total, count, result, best).
const INT: &[&str] = &["n", "number", "value", "num", "amount", "size"];
const OTHER_INT: &[&str] = &["m", "other", "second", "limit", "q", "step"];
const NUMBERS: &[&str] = &["numbers", "values", "nums", "data", "scores", "items"];
const OTHER_NUMBERS: &[&str] = &["others", "extra", "more", "second", "right", "added"];
const TEXT: &[&str] = &["text", "word", "name", "line", "title", "phrase"];
const WORDS: &[&str] = &["words", "names", "labels", "strings", "titles", "lines"];
const TABLE: &[&str] = &["table", "prices", "ages", "stock", "marks", "points"];
