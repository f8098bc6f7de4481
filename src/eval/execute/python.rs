//! Finding a Python interpreter.

use super::confinement::{Confinement, Layers};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A Python 3 interpreter.
#[derive(Clone, Debug)]
pub struct Python {
    pub(super) executable: PathBuf,
    pub(super) version: String,
    /// Where it looks for modules: the standard library and the packages installed for it.
    pub(super) path: Vec<String>,
    /// Folders that it reads its own files from.
    pub(super) prefixes: Vec<PathBuf>,
    /// Found out at the first run.
    pub(super) confinement: Arc<OnceLock<Confinement>>,
}

/// An interpreter that does not tell its version in this time is not used.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an interpreter tells of itself.
#[derive(serde::Deserialize)]
struct Answer {
    version: Vec<u32>,
    executable: PathBuf,
    path: Vec<String>,
    prefixes: Vec<PathBuf>,
}

const QUESTION: &str = "import json, os, sys; print(json.dumps(dict(
    version=sys.version_info[:3], executable=sys.executable, path=[p for p in sys.path if os.path.exists(p)],
    prefixes=[sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix])))";

impl Python {
    /// `python3`, else `python`, if it is a Python 3 that starts. `None` is no error: what needs Python is skipped.
    pub fn find() -> Option<Self> {
        ["python3", "python"].into_iter().find_map(Self::at)
    }

    /// The interpreter that the command `name` runs, if it is a Python 3.
    pub fn at(name: impl AsRef<Path>) -> Option<Self> {
        // A version manager's shim is a script that needs the environment: ask it for the interpreter behind it.
        let mut answer = tempfile::tempfile().ok()?;
        let mut child = Command::new(name.as_ref())
            .args(["-I", "-X", "utf8", "-c", QUESTION])
            .stdin(Stdio::null())
            .stdout(answer.try_clone().ok()?)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().ok()? {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(super::run::POLL),
                None => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return None;
                }
            }
        };
        let mut text = String::new();
        answer.seek(SeekFrom::Start(0)).ok()?;
        answer.read_to_string(&mut text).ok()?;
        let Answer { version, executable, path, prefixes } = serde_json::from_str(&text).ok()?;
        let usable = status.success() && version.first() == Some(&3) && executable.is_absolute();
        let version = version.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        usable.then(|| Self { executable, version, path, prefixes, confinement: Arc::default() })
    }

    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Such as "3.11.7".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What confines its programs on this machine; found out by running an empty one, once.
    pub fn confinement(&self) -> &Confinement {
        self.confinement.get_or_init(|| Confinement::probe(self))
    }

    /// The same interpreter, confined by no more than `layers`, for tests of what is left where the kernel refuses some.
    pub fn with_layers(mut self, layers: Layers) -> Self {
        self.confinement = Arc::new(OnceLock::from(Confinement::of(layers)));
        self
    }
}
