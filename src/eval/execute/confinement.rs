//! Which of the kernel's means of confinement are in force here.

use super::limits::{Limits, Verdict};
use super::python::Python;
use super::run::Outcome;
use serde::Serialize;
use std::fmt;

/// What confines a program beyond resource limits. All of it is Linux's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Layers {
    /// User, process, network, mount and IPC namespaces of its own: it sees and signals no other process, has no network, the file
    /// system is read-only but for its folder, which is in memory and has a size; everything that it started ends with it.
    pub namespaces: bool,
    /// It reads the interpreter's files only, writes its own folder only, binds and connects no TCP port, and signals nobody outside.
    pub landlock: bool,
    /// The kernel refuses it new processes, sockets, signals to others and what can outlast a process; also to root.
    pub seccomp: bool,
}

/// The layers in force, and why others are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confinement {
    #[serde(flatten)]
    pub layers: Layers,
    /// Whether the kernel limits memory, CPU time, file size and the like.
    pub resource_limits: bool,
    /// A sentence for each layer that is not in force: its name and what the kernel said.
    pub refused: Vec<String>,
}

/// What a program may be expected to import: an interpreter that cannot under some layer would fail good programs.
const IMPORTS: &str =
    "import typing, math, re, collections, itertools, functools, hashlib, random, json, datetime, string\n";

type Switch = (&'static str, fn(&mut Layers) -> &mut bool);

impl Confinement {
    pub(super) fn of(layers: Layers) -> Self {
        Self { layers, resource_limits: cfg!(unix), refused: Vec::new() }
    }

    /// Tries the layers one by one, each on top of those that work.
    pub(super) fn probe(python: &Python) -> Self {
        let mut found = Self::of(Layers::default());
        if !cfg!(target_os = "linux") {
            found.refused.push("namespaces, Landlock and seccomp: only Linux has them".into());
            return found;
        }
        let switches: [Switch; 3] = [
            ("namespaces", |layers| &mut layers.namespaces),
            ("Landlock", |layers| &mut layers.landlock),
            ("seccomp", |layers| &mut layers.seccomp),
        ];
        for (name, switch) in switches {
            let mut more = found.layers;
            *switch(&mut more) = true;
            let limits = Limits { wall: std::time::Duration::from_secs(20), cpu_seconds: 20, ..Limits::default() };
            let why = match python.run_confined(IMPORTS, &limits, more) {
                Ok(Outcome::Ended(Verdict::Passed)) => {
                    found.layers = more;
                    continue;
                }
                Ok(Outcome::Ended(Verdict::Failed(failure))) => failure.to_string(),
                Ok(Outcome::Ended(verdict)) => format!("{verdict:?}"),
                Ok(Outcome::NotStarted(why)) => why,
                Err(error) => error.to_string(),
            };
            found.refused.push(format!("{name}: {why}"));
        }
        found
    }
}

/// One line.
impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layers { namespaces, landlock, seccomp } = self.layers;
        let parts = [
            (true, "time and output limits"),
            (self.resource_limits, "resource limits"),
            (namespaces, "namespaces (user, pid, net, mount, ipc)"),
            (landlock, "Landlock"),
            (seccomp, "seccomp"),
        ];
        let parts: Vec<&str> = parts.into_iter().filter_map(|(there, name)| there.then_some(name)).collect();
        write!(f, "programs are confined by {}", parts.join(", "))?;
        if !self.refused.is_empty() {
            write!(f, "; not in force: {}", self.refused.join("; "))?;
        }
        Ok(())
    }
}
