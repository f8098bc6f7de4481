//! Before the first step: every rank runs the same version with the same configuration on the same data.

use serde::{Deserialize, Serialize};

use super::collective::Collective;
use super::session::{agreed, together};
use crate::config::Config;
use crate::error::Result;

/// What must be the same on every rank, in words: what it is, and its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts(Vec<(String, String)>);

impl Facts {
    /// The program's version and every key of the configuration but the data's path, which may be local to a machine.
    pub fn of(config: &Config) -> Result<Self> {
        let mut facts = Self::default();
        facts.add("the program's version", env!("CARGO_PKG_VERSION"));
        let (toml, mut table) = (config.to_toml()?, "");
        for line in toml.lines() {
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_end_matches(']');
            } else if let Some((key, value)) =
                line.split_once(" = ").filter(|(key, _)| (table, *key) != ("data", "path"))
            {
                facts.add(format!("{table}.{key}"), value);
            }
        }
        Ok(facts)
    }

    pub fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.0.push((name.into(), value.to_string()));
    }

    /// The first thing that differs: name, value here, value there.
    fn difference<'a>(&'a self, other: &'a Self) -> Option<(&'a str, &'a str, &'a str)> {
        let value = |facts: &'a Self, name: &str| {
            facts.0.iter().find(|(found, _)| found == name).map_or("nothing", |(_, value)| value.as_str())
        };
        let names = self.0.iter().chain(&other.0).map(|(name, _)| name.as_str());
        names.map(|name| (name, value(self, name), value(other, name))).find(|(_, here, there)| here != there)
    }
}

/// Compares the ranks' facts, or tells all of them what has failed on one.
///
/// # Errors
/// The same on every rank: the first rank that differs from rank 0 and in what, or the error that a rank has.
pub fn agree(group: &dyn Collective, mine: Result<Facts>) -> Result<()> {
    let all = together(group, mine)?;
    let Some((first_host, first)) = all.first() else { return Ok(()) };
    for (rank, (host, facts)) in all.iter().enumerate() {
        if let Some((name, here, there)) = first.difference(facts) {
            let message = format!(
                "the ranks differ in {name}: {here} on rank 0 ({first_host}), {there} on rank {rank} ({host}); start all \
                 of them with the same program, options and data"
            );
            return Err(agreed(message, 2));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::parallel::hosted::tests::on_ranks;

    #[test]
    fn what_differs_is_named_on_every_rank() {
        let facts = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
            Facts::of(&Config::resolve(Some("demo"), None, &sets).unwrap())
        };
        let same = on_ranks(3, |group| agree(&*group, facts(&[&format!("data.path={}", group.rank())])).is_ok());
        assert_eq!(same, [true; 3]);
        let told = on_ranks(3, |group| {
            let set = if group.rank() == 2 { "optimizer.lr=0.25" } else { "optimizer.lr=0.5" };
            agree(&*group, facts(&[set])).unwrap_err()
        });
        for error in told {
            let message = error.to_string();
            assert!(message.contains("optimizer.lr: 0.5 on rank 0") && message.contains("0.25 on rank 2"), "{message}");
            assert_eq!(error.exit_code(), 2);
        }
        let failed = on_ranks(3, |group| {
            let mine = if group.rank() == 1 { Err(Error::failed("no disk")) } else { facts(&[]) };
            agree(&*group, mine).unwrap_err()
        });
        assert!(failed.iter().all(|error| error.to_string().starts_with("rank 1 on ") && error.exit_code() == 1));
        let all = on_ranks(3, |group| agree(&*group, Err(Error::input("no such preset"))).unwrap_err().to_string());
        assert_eq!(all, ["no such preset"; 3]);
    }
}
