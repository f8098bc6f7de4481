//! CUDA without a GPU: a real run of the program on a fake driver (tests/cuda/fake_driver.c), so that NVRTC compiles every
//! kernel that phi-1's training step launches, for an A100 and for a Hopper; ptxas then tells registers and spills.
//!
//! Needs a C compiler and the folder of NVIDIA's wheels (`make test` installs them under target/cuda-wheels;
//! TRAINER_CUDA_WHEELS names another place); without them the test says that it is skipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One compiled kernel.
struct Kernel {
    entry: String,
    registers: u32,
    spill_bytes: u32,
    static_shared_bytes: u32,
    launches: usize,
}

fn wheels() -> Option<PathBuf> {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/cuda-wheels");
    let root = std::env::var_os("TRAINER_CUDA_WHEELS").map_or_else(default, PathBuf::from).join("nvidia");
    root.join("cuda_nvrtc/lib").is_dir().then_some(root)
}

/// The fake driver's library and a toolkit folder with the wheels' headers in one place.
fn set_up(dir: &Path, wheels: &Path) -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/fake_driver.c");
    let library = dir.join("libcuda.so.1");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    if !built.map_err(|error| format!("no C compiler (cc): {error}"))?.success() {
        panic!("the fake driver does not compile");
    }
    let include = dir.join("toolkit/include");
    fs::create_dir_all(&include).unwrap();
    for part in ["cuda_nvrtc", "cuda_runtime", "cuda_nvcc", "cuda_cccl"] {
        merge(&wheels.join(part).join("include"), &include);
    }
    Ok(())
}

/// Links every file below `from` to the same place below `to`.
fn merge(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).unwrap();
            merge(&entry.path(), &target);
        } else if !target.exists() {
            std::os::unix::fs::symlink(entry.path(), target).unwrap();
        }
    }
}

/// Runs the program on the fake driver; the PTX of every kernel is then in the returned folder.
fn compile(dir: &Path, wheels: &Path, capability: &str, arguments: &[&str]) -> PathBuf {
    let ptx = dir.join(format!("sm_{capability}"));
    fs::create_dir_all(&ptx).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["--backend", "cuda"])
        .args(arguments)
        .env("LD_LIBRARY_PATH", format!("{}:{}", dir.display(), wheels.join("cuda_nvrtc/lib").display()))
        .env("CUDA_PATH", dir.join("toolkit"))
        .env("FAKE_CUDA_DIR", &ptx)
        .env("FAKE_CUDA_CAPABILITY", capability)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sm_{capability}: {}\n{stderr}", output.status);
    assert!(!stderr.contains("panicked") && !stderr.contains("Error"), "sm_{capability}: {stderr}");
    ptx
}

/// Assembles each kernel; the number after `key` in ptxas' report is what counts.
fn assemble(ptx: &Path, wheels: &Path, architecture: &str) -> Vec<Kernel> {
    let launches = fs::read_to_string(ptx.join("launches")).unwrap();
    let mut counts = BTreeMap::new();
    for line in launches.lines() {
        *counts.entry(line[..4].to_owned()).or_insert(0) += 1;
    }
    counts
        .into_iter()
        .map(|(number, launches)| {
            let file = ptx.join(format!("{number}.ptx"));
            let output = Command::new(wheels.join("cuda_nvcc/bin/ptxas"))
                .arg(format!("-arch={architecture}"))
                .args(["-v", "-o"])
                .arg(ptx.join(format!("{number}.cubin")))
                .arg(&file)
                .output()
                .unwrap();
            let report = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {report}", file.display());
            let before = |key: &str| -> u32 {
                let end = report.find(key);
                end.and_then(|end| report[..end].split_whitespace().next_back()?.parse().ok()).unwrap_or(0)
            };
            let text = fs::read_to_string(&file).unwrap();
            let entry = text.split(".entry ").nth(1).and_then(|rest| rest.split(['(', '\n']).next()).unwrap_or("?");
            Kernel {
                entry: entry.to_owned(),
                registers: before(" registers"),
                spill_bytes: before(" bytes spill stores"),
                static_shared_bytes: before(" bytes smem"),
                launches,
            }
        })
        .collect()
}

#[test]
fn every_kernel_of_a_phi_1_step_compiles() {
    let Some(wheels) = wheels() else {
        eprintln!("SKIPPED: NVIDIA's NVRTC and ptxas wheels are not installed (make test does that)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    if let Err(missing) = set_up(dir.path(), &wheels) {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    // phi-1's widths and sequences, one block.
    let step = [
        "bench",
        "--layers",
        "1",
        "--hidden",
        "2048",
        "--heads",
        "32",
        "--vocab",
        "51200",
        "--seq",
        "2048",
        "--micro-batch",
        "4",
        "--accumulate",
        "1",
        "--precision",
        "fp16",
        "--dropout",
        "0.1",
        "--steps",
        "1",
        "--warmup",
        "0",
        "--json",
    ];
    for (capability, architecture) in [("80", "sm_80"), ("90", "sm_90a")] {
        let ptx = compile(dir.path(), &wheels, capability, &step);
        let kernels = assemble(&ptx, &wheels, architecture);
        assert!(!kernels.is_empty());
        println!("{architecture}: launches, registers, spilled bytes, static shared bytes, kernel");
        for kernel in &kernels {
            let Kernel { entry, registers, spill_bytes, static_shared_bytes, launches } = kernel;
            println!("{launches:>5} {registers:>4} {spill_bytes:>6} {static_shared_bytes:>7}  {entry}");
        }
        let spilling: Vec<&str> =
            kernels.iter().filter(|kernel| kernel.spill_bytes > 0).map(|kernel| kernel.entry.as_str()).collect();
        assert!(spilling.is_empty(), "{architecture}: these kernels spill registers: {spilling:?}");
    }
}
