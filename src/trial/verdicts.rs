//! What a trial found, on disk.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trainer_backends::discovery::DeviceInfo;
use trainer_backends::tensor_cores::KernelFamily;

use crate::report::voice::say;

/// What a family's trial found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    #[serde(with = "by_name")]
    pub family: KernelFamily,
    pub passed: bool,
    /// Results that were held against the reference; 0 where it did not pass.
    pub comparisons: usize,
    /// Why it did not pass.
    pub why: Option<String>,
    pub seconds: f64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            None => write!(f, "{}: {} comparisons within tolerance", self.family.name(), self.comparisons),
            Some(why) => write!(f, "{} failed their trial: {why}", self.family.name()),
        }
    }
}

mod by_name {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use trainer_backends::tensor_cores::KernelFamily;

    pub fn serialize<S: Serializer>(family: &KernelFamily, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(family.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KernelFamily, D::Error> {
        let name = String::deserialize(deserializer)?;
        KernelFamily::ALL
            .into_iter()
            .find(|family| family.name() == name)
            .ok_or_else(|| de::Error::custom(format!("{name} is no family of kernels")))
    }
}

/// The file of a device's verdicts.
pub(super) struct Kept(PathBuf);

impl Kept {
    /// In the folder of the kernels that this build, compiler and compute capability have. Devices of one name are one.
    pub fn new(folder: &Path, device: &DeviceInfo) -> Self {
        let plain = |text: &str| text.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        Self(folder.join(format!("trial-{}-{}.json", plain(&device.name), plain(&device.driver))))
    }

    /// `None` where there are none, or what is there cannot be read.
    pub fn read(&self) -> Option<Vec<Verdict>> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// Whole or not at all; whether it was possible. A folder that cannot be written costs the next start another trial.
    pub fn write(&self, verdicts: &[Verdict]) -> bool {
        let write = || -> std::io::Result<()> {
            let folder = self.0.parent().unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec_pretty(verdicts)?)?;
            file.persist(&self.0)?;
            Ok(())
        };
        write().is_ok()
    }
}

/// Held while a device is tried out. The operating system gives it back with the process.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not read")] Option<File>);

impl Lock {
    /// Waits for whoever has it. Where there are no locks nobody waits, and each process tries for itself.
    pub fn wait(folder: &Path) -> Self {
        let Ok(file) = File::create(folder.join("trial.lock")) else { return Self(None) };
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                say("waiting for another process that tries out this GPU's kernels ...");
                file.lock().is_ok()
            }
            other => other.is_ok(),
        };
        Self(locked.then_some(file))
    }
}

#[cfg(test)]
mod tests {
    use trainer_backends::discovery::Backend;

    use super::*;

    #[test]
    fn verdicts_are_kept_by_device_and_driver() {
        let folder = tempfile::tempdir().unwrap();
        let device = |name: &str, driver: &str| DeviceInfo {
            driver: driver.into(),
            ..DeviceInfo::new(Backend::Cuda, 0, name.to_owned())
        };
        let kept = |name, driver| Kept::new(folder.path(), &device(name, driver));
        let first = kept("NVIDIA H100/PCIe", "CUDA 12.8");
        assert_eq!(first.read(), None);
        let why = Some("2 of 9 comparisons are outside their tolerance".to_owned());
        let verdicts = [
            Verdict { family: KernelFamily::WgmmaProducts, passed: false, comparisons: 0, why, seconds: 2.5 },
            Verdict { family: KernelFamily::MmaProducts, passed: true, comparisons: 9, why: None, seconds: 1.0 },
        ];
        assert!(first.write(&verdicts));
        assert_eq!(first.read().as_deref(), Some(&verdicts[..]));
        assert_eq!(kept("NVIDIA H100/PCIe", "CUDA 12.9").read(), None);
        assert_eq!(kept("NVIDIA H200", "CUDA 12.8").read(), None);
        // Half a file, or an unknown family, is none.
        for content in
            ["[{\"family\": \"prod", "[{\"family\": \"x\", \"passed\": true, \"comparisons\": 1, \"seconds\": 1}]"]
        {
            fs::write(&first.0, content).unwrap();
            assert_eq!(first.read(), None, "{content}");
        }
        assert!(!Kept::new(&folder.path().join("missing"), &device("a", "b")).write(&verdicts));
    }

    #[test]
    fn one_waits_for_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::wait(folder.path());
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = folder.path().to_owned();
        let second = std::thread::spawn(move || {
            let _lock = Lock::wait(&path);
            sender.send(()).unwrap();
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(200)).is_err());
        drop(first);
        receiver.recv().unwrap();
        second.join().unwrap();
        // Nor does a folder that is not there hold anyone up.
        Lock::wait(&folder.path().join("missing"));
    }
}
