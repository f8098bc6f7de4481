//! Where a completion ends in a model's raw text.

/// A raw text is cut at the first of these. Codex stopped at "\nclass", "\ndef", "\n#", "\nif" and "\nprint" (Chen et al. 2021,
/// section 3.2); "\n@" and "\n```" come from the BigCode evaluation harness (bigcode_eval/tasks/humaneval.py), which has the same
/// five beside them. Each is a line that starts at the margin, where no body goes on.
pub const STOPS: [&str; 7] = ["\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```"];

/// `text` up to its first stop.
pub fn truncate(text: &str) -> &str {
    let end = STOPS.iter().filter_map(|stop| text.find(stop)).min();
    &text[..end.unwrap_or(text.len())]
}

/// Whether `text` has come to a stop, so that whoever generates it may end.
pub fn has_stopped(text: &str) -> bool {
    truncate(text).len() < text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_at_its_first_stop() {
        let body = "    return 1  # one\n    # if so\n";
        for stop in STOPS {
            let text = format!("{body}{stop} more\ndef f():\n    pass\n");
            assert_eq!(truncate(&text), body, "{stop:?}");
            assert!(has_stopped(&text));
        }
        assert_eq!(truncate("    x = 1\n\n\nprint(x)\n\nclass A:\n"), "    x = 1\n\n");
    }

    #[test]
    fn what_belongs_to_the_body_stays() {
        for text in [
            "",
            "\n",
            "    if x:\n        return '''\n    print'''\n\n    def g():\n        return 1\n",
            "\nx = 1\n",
            "é\n",
        ] {
            assert_eq!(truncate(text), text);
            assert!(!has_stopped(text));
        }
        // A stop is a line of its own; before the text stands the prompt, which ends one.
        assert_eq!(truncate("def f():"), "def f():");
        assert_eq!(truncate("    a\n\n\n\n    b\n"), "    a\n\n\n\n    b\n");
        // Prefixes count, as they do in the harness: no word's end is asked for.
        assert_eq!(truncate("    a\ndefault = 1"), "    a");
    }
}
