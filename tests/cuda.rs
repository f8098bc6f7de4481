//! CUDA without a GPU: real runs of the program on the emulated driver (tests/emulator). NVRTC compiles every kernel that
//! phi-1's training step launches, for an A100 and for a Hopper, and ptxas tells registers and spills; the self-test's
//! kernels are also executed, against the reference.
//!
//! Needs the folder of NVIDIA's wheels (`make test` installs them under target/cuda-wheels; TRAINER_CUDA_WHEELS names
//! another place); without it the tests say that they are skipped.

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

/// The emulator's library under the driver's name, and a toolkit folder with the wheels' headers in one place.
fn set_up(dir: &Path, wheels: &Path) {
    // A dev-dependency's shared library lies beside the test that cargo built with it.
    let library = std::env::current_exe().unwrap().with_file_name("libcuda_emulator.so");
    assert!(library.is_file(), "{} is missing: cargo builds it with this test", library.display());
    std::os::unix::fs::symlink(library, dir.join("libcuda.so.1")).unwrap();
    let include = dir.join("toolkit/include");
    fs::create_dir_all(&include).unwrap();
    for part in ["cuda_nvrtc", "cuda_runtime", "cuda_nvcc", "cuda_cccl"] {
        merge(&wheels.join(part).join("include"), &include);
    }
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

/// The program on the emulated driver.
fn program(dir: &Path, wheels: &Path, capability: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command
        .args(["--backend", "cuda"])
        .env("LD_LIBRARY_PATH", format!("{}:{}", dir.display(), wheels.join("cuda_nvrtc/lib").display()))
        .env("CUDA_PATH", dir.join("toolkit"))
        // Every run compiles, and leaves nothing in the user's folders.
        .env("TRAINER_KERNEL_CACHE", "off")
        .env("CUDA_EMULATOR_CAPABILITY", capability);
    command
}

/// Runs the program without executing a kernel; the PTX of every kernel is then in the returned folder.
fn compile(dir: &Path, wheels: &Path, capability: &str, arguments: &[&str]) -> PathBuf {
    let ptx = dir.join(format!("sm_{capability}"));
    fs::create_dir_all(&ptx).unwrap();
    let output = program(dir, wheels, capability).args(arguments).env("CUDA_EMULATOR_DIR", &ptx).output().unwrap();
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

/// A folder that is set up for runs, and the wheels; `None` where they are missing, which it says.
fn prepared() -> Option<(tempfile::TempDir, PathBuf)> {
    let Some(wheels) = wheels() else {
        eprintln!("SKIPPED: NVIDIA's NVRTC and ptxas wheels are not installed (make test does that)");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path(), &wheels);
    Some((dir, wheels))
}

/// The self-test in three dtypes, whole or only some `groups`: a violation in a kernel ends the run.
fn self_test(capability: &str, groups: Option<&str>, comparisons: usize) {
    let Some((dir, wheels)) = prepared() else { return };
    let output = program(dir.path(), &wheels, capability)
        .env("CUDA_EMULATOR_EXECUTE", "1")
        .args(["selftest", "--seed", "1", "--json"])
        .args(groups.map(|groups| ["--only", groups]).into_iter().flatten())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("sm_{capability}: {}: {error}\n{stderr}", output.status));
    let rows = |key: &str| report[key].as_array().unwrap().clone();
    let failed: Vec<_> =
        rows("operations").into_iter().chain(rows("parity")).filter(|row| row["passed"] != true).collect();
    assert!(failed.is_empty(), "sm_{capability}: {failed:#?}");
    assert!(output.status.success(), "sm_{capability}: {}\n{stderr}", output.status);
    let operations = rows("operations").len();
    // Fewer mean that cases, or a whole dtype, were left out.
    assert!(operations >= comparisons, "sm_{capability}: {operations} comparisons");
}

#[test]
fn self_test_on_sm_80() {
    self_test("80", None, 673);
}

/// What multiplies, and so chooses by capability.
#[test]
fn products_of_the_self_test_on_sm_90() {
    self_test("90", Some("linear,loss,attention"), 350);
}

#[test]
fn every_kernel_of_a_phi_1_step_compiles() {
    let Some((dir, wheels)) = prepared() else { return };
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

/// Kernels that NVRTC compiled, by CubeCL's own log of them.
fn compilations(log: &Path) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches("[START_KERNEL_COMPILATION]").count()
}

#[test]
fn a_second_start_compiles_no_kernel() {
    let Some((dir, wheels)) = prepared() else { return };
    let start = |name: &str, capability: &str| {
        let log = dir.path().join(name);
        let started = std::time::Instant::now();
        let output = program(dir.path(), &wheels, capability)
            .env("CUDA_EMULATOR_EXECUTE", "1")
            .env("TRAINER_KERNEL_CACHE", dir.path().join("kernels"))
            .env("CUBECL_DEBUG_LOG", &log)
            .args("bench --layers 1 --hidden 64 --heads 1 --vocab 96 --seq 32 --micro-batch 1".split(' '))
            .args("--precision fp16 --dropout 0.1 --steps 2 --warmup 0 --json".split(' '))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {}\n{stderr}", output.status);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = compilations(&log);
        println!("sm_{capability} {name}: {count} kernels compiled, {:.1} s", started.elapsed().as_secs_f64());
        (count, report["loss"].as_f64().unwrap())
    };
    let (first, loss) = start("first", "80");
    // Every operation of a step has kernels of its own.
    assert!(first >= 20, "only {first} kernels were compiled");
    assert_eq!(start("second", "80"), (0, loss));
    // Another architecture's kernels are others.
    assert!(start("other", "90").0 >= 20);
}
