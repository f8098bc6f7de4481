//! "Did you mean": the known name nearest to a mistyped one.

/// Bytes of a word that may be mistyped; what is longer is no name, and would be compared for long.
const LONGEST: usize = 200;

/// The candidate that `word` most likely stands for, or `None` where nothing is near: at most a third of the longer
/// word may differ, in letters changed, inserted, removed or swapped with a neighbour.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| 3 * distance <= word.chars().count().max(candidate.chars().count()).max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance (Damerau-Levenshtein in which no part is edited twice), ignoring case and
/// taking `-` for `_`.
fn distance(a: &str, b: &str) -> usize {
    let normal = |s: &str| s.to_lowercase().replace('-', "_").chars().collect::<Vec<_>>();
    let (a, b) = (normal(a), normal(b));
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("layers", "layers"), 0);
        assert_eq!(distance("layres", "layers"), 1);
        assert_eq!(distance("layer", "layers"), 1);
        assert_eq!(distance("", "lr"), 2);
        assert_eq!(distance("Seq-Len", "seq_len"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let presets = ["phi-1", "phi-1-small", "phi-1-finetune", "laptop", "demo"];
        assert_eq!(nearest("phi1", presets), Some("phi-1"));
        assert_eq!(nearest("phi-1-smal", presets), Some("phi-1-small"));
        assert_eq!(nearest("labtop", presets), Some("laptop"));
        assert_eq!(nearest("llama-3-70b", presets), None);
        assert_eq!(nearest("rl", ["lr", "eps"]), Some("lr"));
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(nearest(&long, [long.as_str()]), None);
    }
}
