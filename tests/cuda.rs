//! CUDA without a GPU: real runs of the program on the emulated driver (tests/emulator). NVRTC compiles every kernel that
//! phi-1's training step launches, for an A100 and for a Hopper, and ptxas tells registers and spills; the self-test's
//! kernels are also executed, against the reference.
//!
//! Needs the folder of NVIDIA's wheels (`make test` installs them under target/cuda-wheels; TRAINER_CUDA_WHEELS names
//! another place); without it the tests say that they are skipped.

mod generation;
mod recompute;
mod sweep;
mod trial;

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
        // Kernels are the test's to try.
        .env("TRAINER_TRIAL", "off")
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
            // Where ptxas cannot keep the products of a warpgroup in flight, it says so and waits after each.
            assert!(!report.contains("serialized"), "{}: {report}", file.display());
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

/// The self-test with some `options`: a violation in a kernel ends the run. Returns how many
/// launches there were of our two kernels for tensor cores.
fn self_test(capability: &str, options: &str, (variable, value): (&str, &str), comparisons: usize) -> Option<Launches> {
    let (dir, wheels) = prepared()?;
    let ptx = dir.path().join("ptx");
    fs::create_dir(&ptx).unwrap();
    let mut program = program(dir.path(), &wheels, capability);
    if capability == "90" {
        // So that a block there has several tiles even of small matrices.
        program.env("CUDA_EMULATOR_MULTIPROCESSORS", "4");
    }
    let output = program
        .env("CUDA_EMULATOR_EXECUTE", "1")
        .env("CUDA_EMULATOR_DIR", &ptx)
        .env(variable, value)
        .args(["selftest", "--seed", "1", "--json"])
        .args(options.split_whitespace())
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
    let launches = fs::read_to_string(ptx.join("launches")).unwrap();
    let of = |entry: &str| {
        let is = |line: &&str| fs::read_to_string(ptx.join(format!("{}.ptx", &line[..4]))).unwrap().contains(entry);
        launches.lines().filter(is).count()
    };
    Some(Launches {
        ampere: of(".entry ampere_gemm("),
        hopper: of(".entry hopper_gemm("),
        attention: of(".entry attention_"),
    })
}

#[derive(Debug)]
struct Launches {
    ampere: usize,
    hopper: usize,
    attention: usize,
}

/// Forward, and two of backward, of the self-test's two shapes for them, in two dtypes, with and without dropout, and of one
/// with much of it; and backward through the rotation, of as many.
const ATTENTION: usize = 50;

/// What kernels in CUDA C++ take.
const PRODUCTS: &str = "--only products --dtype fp16,bf16";

/// As a user has it who sets nothing.
const AUTO: (&str, &str) = ("TRAINER_WGMMA", "auto");

#[test]
fn self_test_on_sm_80() {
    if let Some(launches) = self_test("80", "", AUTO, 1685) {
        assert!(launches.hopper == 0 && launches.ampere >= 20, "{launches:?}");
        assert!(launches.attention >= ATTENTION, "{launches:?}");
    }
}

/// What multiplies, and so chooses by capability; in fp32 nothing does, and its kernels are those of sm_80.
#[test]
fn products_of_the_self_test_on_sm_90() {
    let options = "--only norm,linear,products,loss,attention,attention-blocks --dtype fp16,bf16";
    if let Some(launches) = self_test("90", options, AUTO, 876) {
        assert!(launches.hopper >= 20 && launches.ampere == 0, "{launches:?}");
        assert_eq!(launches.attention, ATTENTION, "{launches:?}");
    }
}

/// Tiles and stages that small products do not choose, several tiles a block; and the route without them.
#[test]
fn other_tiles_on_sm_90() {
    let products = |value: &str| self_test("90", PRODUCTS, ("TRAINER_WGMMA", value), 52);
    for blueprint in ["128x256x4x2x1", "128x256x3x1x2", "256x128x3x1x2", "256x64x2x16x1"] {
        if let Some(launches) = products(blueprint) {
            assert!(launches.hopper >= 16 && launches.ampere == 0, "{blueprint}: {launches:?}");
        }
    }
    if let Some(launches) = products("off") {
        assert!(launches.hopper == 0 && launches.ampere >= 16, "{launches:?}");
    }
}

#[test]
fn other_tiles_on_sm_80() {
    let products = |value: &str| self_test("80", PRODUCTS, ("TRAINER_MMA", value), 46);
    for blueprint in ["128x256x3x1", "256x128x2x2", "64x128x4x3"] {
        if let Some(launches) = products(blueprint) {
            assert!(launches.ampere >= 16, "{blueprint}: {launches:?}");
        }
    }
    if let Some(launches) = products("off") {
        assert_eq!(launches.ampere, 0, "{launches:?}");
    }
}

/// The driver's refusal is found out before a kernel that needs such a map is launched.
#[test]
fn attention_does_without_maps_that_the_driver_refuses() {
    let Some((dir, wheels)) = prepared() else { return };
    let step = "bench --layers 1 --hidden 128 --heads 2 --vocab 256 --seq 128 --micro-batch 1 --accumulate 1 --precision fp16 \
                --dropout 0.1 --steps 1 --warmup 0 --json";
    for (ascending, expected) in [("0", "wgmma"), ("1", "mma.sync")] {
        let ptx = dir.path().join(expected);
        fs::create_dir(&ptx).unwrap();
        let output = program(dir.path(), &wheels, "90")
            .args(step.split_whitespace())
            .env("CUDA_EMULATOR_DIR", &ptx)
            .env("CUDA_EMULATOR_ASCENDING", ascending)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let texts = fs::read_dir(&ptx).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        let attention: Vec<String> = texts.filter(|text| text.contains(".entry attention_")).collect();
        assert!(attention.len() >= 3, "{expected}: {}", attention.len());
        assert!(attention.iter().all(|text| text.contains(expected)), "{expected}");
    }
}

#[test]
fn a_tile_that_is_none_is_refused() {
    let Some((dir, wheels)) = prepared() else { return };
    for (variable, value, expected) in [
        ("TRAINER_WGMMA", "256x256x2x8x1", "expected 128 or 256 rows"),
        ("TRAINER_MMA", "256x256x2x8", "expected 64, 128 or 256 rows"),
    ] {
        let output = program(dir.path(), &wheels, "90").args(["selftest"]).env(variable, value).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(variable) && stderr.contains(expected), "{stderr}");
    }
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
        let variants = |kernel: &str| kernels.iter().filter(|compiled| compiled.entry == kernel).count();
        for (kernel, of) in [("ampere_gemm", "80"), ("hopper_gemm", "90")] {
            assert_eq!(variants(kernel) > 0, capability == of, "{architecture}: {} of {kernel}", variants(kernel));
        }
        for kernel in ["attention_forward", "attention_dq", "attention_dk_dv"] {
            assert!(variants(kernel) > 0, "{architecture}: {kernel}");
        }
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

/// The smallest model whose groups divide among three: in equal parts, which NCCL scatters, and in others.
const TINY: &str = "model.layers=1 model.hidden=32 model.heads=1 model.seq_len=16 train.steps=3 train.batch=6 \
                    train.micro_batch=1 validation.every=0 checkpoint.every=3 optimizer.warmup_steps=1";
/// Ranks add gradients up in another order, in fp32: some units in the last place (6e-8) of a loss, over three steps.
const SAME: f64 = 1e-6;

/// NCCL's collectives, on a library that stands in for it (tests/nccl_stand_in).
#[test]
fn gpus_that_exchange_through_nccl_train_as_one_does() {
    use crate::support::{Place, furthest_apart, metrics, run, set, whole_latest};

    let Some((dir, wheels)) = prepared() else { return };
    let place = Place::new();
    let train = |out: &str, gpus: usize, options: &[&str]| {
        let mut command = program(dir.path(), &wheels, "80");
        command.env("CUDA_EMULATOR_EXECUTE", "1").env("CUDA_EMULATOR_DEVICES", gpus.to_string());
        command.args(["train", "--timeout", "300"]).args(options);
        command.arg("--config").arg(place.path("config.toml")).arg("--data").arg(place.path("data"));
        set(command.arg("--out").arg(place.path(out)), TINY);
        command
    };
    let losses = |out: &str| metrics(&place.path(out)).losses();

    for (gpus, options, words) in [
        (2, &["--devices", "2"][..], &["there is no NCCL", "nvidia-nccl-cu12", "--collectives host"][..]),
        (1, &["--devices", "2"], &["--devices 2", "no device 1"]),
        (2, &["--devices", "2", "--device", "0"], &["leave --device out"]),
    ] {
        run(&mut train("refused", gpus, options)).error(2, words);
        assert!(!place.path("refused").exists());
    }

    let library = std::env::current_exe().unwrap().with_file_name("libnccl_stand_in.so");
    assert!(library.is_file(), "{} is missing: cargo builds it with this test", library.display());
    std::os::unix::fs::symlink(library, dir.path().join("libnccl.so.2")).unwrap();
    run(&mut train("one", 1, &[])).success();
    let one = losses("one");
    assert_eq!(one.len(), 3);
    for (out, gpus, options) in [
        ("single", 1, &["--collectives", "nccl"][..]),
        ("zero-0", 2, &["--devices", "2", "--zero", "0"]),
        ("zero-1", 3, &["--devices", "3", "--zero", "1"]),
        ("zero-2", 2, &["--devices", "2", "--zero", "2"]),
    ] {
        let mut command = train(out, gpus, options);
        let ended = run(command.env("NCCL_STAND_IN_LOG", "1")).success();
        assert!(ended.stderr.contains("collectives NCCL 2.28.3"), "{}", ended.stderr);
        let used = |operation: &str| ended.stderr.contains(&format!("nccl-stand-in: {operation}"));
        match out {
            "zero-0" => assert!(used("AllReduce") && !used("AllGather")),
            "zero-1" => {
                assert!(["ReduceScatter", "Reduce(2)", "AllGather", "Broadcast(2)"].into_iter().all(used));
            }
            _ => assert!(!used("AllReduce")),
        }
        let apart = furthest_apart(&losses(out), &one);
        eprintln!("{out}: losses of {gpus} within {apart:.1e} of one GPU's");
        assert!(apart < SAME, "{out}: {:?}, expected {one:?}", losses(out));
        whole_latest(&place.path(out));
    }
    // Nothing to add up, so nothing that is rounded otherwise.
    assert_eq!(losses("single"), one);
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

/// What other programs leave of a GPU's memory no estimate knows: the device says so in the middle of a step, on a thread of
/// its own, and what is read from it afterwards is nothing that was computed.
#[test]
fn a_gpu_that_runs_out_of_memory() {
    use crate::support::{Place, metrics, run, set, whole_latest};

    let Some((dir, wheels)) = prepared() else { return };
    let place = Place::new();
    let start = |what: &str, sets: &str, free_mib: u32| {
        let mut command = program(dir.path(), &wheels, "80");
        command
            .env("CUDA_EMULATOR_EXECUTE", "1")
            .env("CUDA_EMULATOR_FREE_MIB", free_mib.to_string())
            .env("TRAINER_KERNEL_CACHE", dir.path().join("kernels"))
            .args(what.split(' '))
            .arg("--out")
            .arg(place.path("run"));
        set(&mut command, sets);
        command
    };
    let config = place.path("config.toml").display().to_string();
    let train = format!("train --config {config} --data {}", place.path("data").display());
    let sets = "train.batch=64 train.micro_batch=32 model.heads=1 model.layers=1 validation.every=0 train.steps=1";
    run(&mut start(&train, sets, 1 << 14)).success();
    let before = place.snapshot("run/checkpoints");
    assert_eq!(metrics(&place.path("run")).losses().len(), 1);

    // Activations above CubeCL's smallest pages take pages of 64 MiB.
    let resume = "train --resume";
    let words = ["out of memory at micro-batches of 32", "--set train.micro_batch=16", "the last checkpoint is intact"];
    let ended = run(&mut start(resume, "train.steps=2", 60));
    ended.error(1, &words);
    assert_eq!(ended.stderr.matches("panicked").count(), 1, "{}", ended.stderr);
    assert_eq!(place.snapshot("run/checkpoints"), before);
    assert_eq!(metrics(&place.path("run")).losses().len(), 1, "a step without its sums is none");
    run(&mut start("train --resume --dry-run", "train.steps=2", 60)).error(1, &words);

    run(&mut start(resume, "train.steps=2 train.micro_batch=16", 60)).success();
    assert_eq!(metrics(&place.path("run")).losses().len(), 2);
    whole_latest(&place.path("run"));
}
