//! Compiled kernels on disk, so that a second start has them at once: a training step has some fifty, and NVRTC takes long
//! (benches/RESULTS.md).
//!
//! CubeCL keeps PTX by a hash of a kernel's name and settings, which says nothing of its source, the architecture, or the
//! compiler. So everything that those depend on is in the folder's name: this binary's bytes, NVRTC's version, the
//! folder of the headers, the compute capability. A folder is then never wrong, only old; the oldest are removed.
//!
//! From PTX to machine code it is the driver's way, which has a cache of its own (`~/.nv/ComputeCache`).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

use crate::discovery::DeviceInfo;
use crate::discovery::cuda::compiler;

/// Where the folders are; `off` is nowhere. Default: `trainer/kernels` in the user's cache folder.
const VARIABLE: &str = "TRAINER_KERNEL_CACHE";

/// Folders that are kept: of a few builds, devices and compilers.
const KEPT: usize = 8;

/// Makes CubeCL keep what it compiles for this device from now on, unless the user's cubecl.toml already says where. Where no
/// folder can be written, kernels are compiled at each start, as without it. To be called before the device's first use.
pub fn enable(device: &DeviceInfo) {
    let mut state = CubeClRuntimeConfig::storage().lock();
    if state.is_some() {
        return;
    }
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    if config.compilation.cache.is_none() {
        config.compilation.cache = folder(device).map(CacheConfig::File);
    }
    *state = Some(Arc::new(config));
}

/// The device's folder, which can be written; `None` where there is none, or shall be none.
pub fn folder(device: &DeviceInfo) -> Option<PathBuf> {
    let root = root(std::env::var_os(VARIABLE).map(PathBuf::from))?;
    let mut hasher = DefaultHasher::new();
    hash_file(&std::env::current_exe().ok()?, &mut hasher).ok()?;
    compiler().hash(&mut hasher);
    let (major, minor) = device.compute_capability?;
    let folder = root.join(format!("sm_{major}{minor}-{:016x}", hasher.finish()));
    let new = !folder.is_dir();
    fs::create_dir_all(&folder).ok()?;
    // Its age is that of its last use; and a folder of someone else's is found out here.
    fs::write(folder.join("used"), "").ok()?;
    if new {
        remove_oldest(&root);
    }
    Some(folder)
}

fn root(chosen: Option<PathBuf>) -> Option<PathBuf> {
    match chosen {
        Some(chosen) if chosen.as_os_str() == "off" => None,
        Some(chosen) if !chosen.as_os_str().is_empty() => Some(chosen),
        _ => user_cache().map(|cache| cache.join("trainer/kernels")),
    }
}

/// The XDG base directory specification's folder for what can be made again; Windows has its own.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        return absolute("LOCALAPPDATA");
    }
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
}

fn hash_file(path: &Path, hasher: &mut impl Hasher) -> io::Result<()> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => hasher.write(&buffer[..read]),
        }
    }
}

/// Leaves the `KEPT` folders that were used last. What cannot be removed stays.
fn remove_oldest(root: &Path) {
    let mut folders: Vec<(SystemTime, PathBuf)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        // Only what `folder` made.
        .filter_map(|path| Some((fs::metadata(path.join("used")).ok()?.modified().ok()?, path)))
        .collect();
    folders.sort();
    let old = folders.len().saturating_sub(KEPT);
    for (_, path) in &folders[..old] {
        fs::remove_dir_all(path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_what_was_asked_for() {
        assert_eq!(root(Some("off".into())), None);
        assert_eq!(root(Some("/somewhere".into())), Some("/somewhere".into()));
        assert_eq!(root(Some("".into())), root(None));
    }

    #[test]
    fn the_oldest_folders_go_and_other_files_stay() {
        let root = std::env::temp_dir().join(format!("trainer-kernels-{}", std::process::id()));
        for i in 0..KEPT + 3 {
            let folder = root.join(format!("sm_80-{i:02}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("used"), "").unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(i as u64);
            fs::File::options().write(true).open(folder.join("used")).unwrap().set_modified(time).unwrap();
        }
        fs::create_dir_all(root.join("notes")).unwrap();
        remove_oldest(&root);
        let exists = |name: &str| root.join(name).exists();
        assert!(!exists("sm_80-00") && !exists("sm_80-02") && exists("sm_80-03") && exists("sm_80-10"));
        assert!(exists("notes"));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_changed_file_has_another_hash() {
        let path = std::env::temp_dir().join(format!("trainer-hash-{}", std::process::id()));
        let hash = |content: &str| {
            fs::write(&path, content).unwrap();
            let mut hasher = DefaultHasher::new();
            hash_file(&path, &mut hasher).unwrap();
            hasher.finish()
        };
        assert_eq!(hash("one"), hash("one"));
        assert_ne!(hash("one"), hash("two"));
        fs::remove_file(&path).unwrap();
    }
}
