//! Counts what could not be read: one entry a file and reason, so that a million bad lines of one file cost one entry.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::data::corpus::Skip;
use crate::data::manifest::Skipped;

/// Skips by file and reason.
#[derive(Debug, Default)]
pub struct SkipLog(BTreeMap<(PathBuf, String), Records>);

/// Number and first of the records; `None` where the reason is about the file as a whole.
type Records = Option<(u64, u64)>;

impl SkipLog {
    pub fn add(&mut self, skip: Skip) {
        self.merge_entry((skip.path, skip.reason), skip.record.map(|record| (1, record)));
    }

    /// Adds another log, of a later part of the corpus or an earlier one.
    pub fn merge(&mut self, other: Self) {
        for (key, records) in other.0 {
            self.merge_entry(key, records);
        }
    }

    fn merge_entry(&mut self, key: (PathBuf, String), records: Records) {
        let entry = self.0.entry(key).or_insert(None);
        *entry = match (*entry, records) {
            (Some((n, first)), Some((more, other))) => Some((n + more, first.min(other))),
            (known, new) => known.or(new),
        };
    }

    /// The entries, by path.
    pub fn into_entries(self) -> Vec<Skipped> {
        let entry = |((path, reason), records): ((PathBuf, String), Records)| Skipped {
            path: path.display().to_string(),
            reason,
            records: records.map(|(number, _)| number),
            first: records.map(|(_, first)| first),
        };
        self.0.into_iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_file_and_reason() {
        let skip = |path: &str, reason: &str, record| Skip { path: path.into(), reason: reason.into(), record };
        let (mut log, mut later) = (SkipLog::default(), SkipLog::default());
        log.add(skip("b.jsonl", "bad", Some(7)));
        log.add(skip("b.jsonl", "bad", Some(9)));
        log.add(skip("a.py", "not UTF-8", None));
        later.add(skip("b.jsonl", "bad", Some(3)));
        later.add(skip("b.jsonl", "worse", Some(4)));
        log.merge(later);
        let entries: Vec<_> = log.into_entries().into_iter().map(|s| (s.path, s.reason, s.records, s.first)).collect();
        let entry = |path: &str, reason: &str, records, first| (path.to_string(), reason.to_string(), records, first);
        assert_eq!(
            entries,
            [
                entry("a.py", "not UTF-8", None, None),
                entry("b.jsonl", "bad", Some(3), Some(3)),
                entry("b.jsonl", "worse", Some(1), Some(4)),
            ]
        );
    }
}
