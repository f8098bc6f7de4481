"""What benches/gpu.sh runs: one part after the other, each within its time, results written as they come."""

import argparse
import glob
import json
import lzma
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REAL = {
    "phi-1": "--preset phi-1 --micro-batch 16 --accumulate 4",
    "phi-1-small": "--preset phi-1-small --micro-batch 16 --accumulate 4",
    "sweep": "--preset phi-1 --micro-batch 16 --precision fp16",
    "kernels": "--hidden 2048 --heads 32 --vocab 51200 --seq 2048 --micro-batch 16 --dtype fp16",
    "model": "--preset phi-1-small --set train.steps=1 --set train.batch=1 --set train.micro_batch=1",
    "curve": "--preset phi-1-small --set model.seq_len=512 --set train.batch=8 --set train.micro_batch=8 --set train.steps=200 "
             "--set optimizer.warmup_steps=20 --set optimizer.lr=3e-4",
    "ranks": "--preset phi-1 --set train.batch=64 --set train.micro_batch=8 --set train.steps=9",
    "precision": "fp16", "steps": 6, "warmup": 2, "decode": 128,
}
# Head dimension 32 and a vocabulary of a thousand: seconds on two cores.
REHEARSED = {
    "phi-1": "--hidden 64 --layers 2 --heads 2 --vocab 512 --seq 64 --micro-batch 2 --accumulate 2",
    "phi-1-small": "--hidden 32 --layers 1 --heads 1 --vocab 512 --seq 64 --micro-batch 2 --accumulate 2",
    "sweep": "--preset demo --seq 32 --micro-batch 2 --precision fp32 --repeats 2",
    "kernels": "--hidden 128 --heads 4 --vocab 1024 --seq 32 --micro-batch 2 --dtype fp32",
    "model": "--preset demo --set train.steps=1 --set train.batch=1 --set train.micro_batch=1 --set model.vocab=50304",
    "curve": "--preset laptop --set model.layers=2 --set model.hidden=64 --set model.heads=2 --set model.seq_len=64 "
             "--set train.batch=4 --set train.micro_batch=2 --set train.steps=25 --set optimizer.warmup_steps=5",
    "ranks": "--preset laptop --set train.batch=4 --set train.micro_batch=2 --set train.steps=9",
    "precision": "fp32", "steps": 3, "warmup": 1, "decode": 16,
}


class Bench:
    def __init__(self, args):
        self.args = args
        self.sizes = REHEARSED if args.rehearse else REAL
        self.backend = os.environ.get("BACKEND", "cuda")
        self.device = "cuda" if self.backend == "cuda" else "cpu"
        self.trainer = os.environ.get("TRAINER", "target/release/trainer")
        self.out = Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.end = time.monotonic() + args.budget
        self.part_end = self.end
        self.tune = args.tune
        self.env = environment()
        self.results = {"arguments": vars(args), "backend": self.backend, "parts": {}}

    def left(self):
        return min(self.end, self.part_end) - time.monotonic()

    def save(self):
        """Whole or not at all: the machine may go while it is written."""
        beside = self.out / "gpu.json.part"
        beside.write_text(json.dumps(self.results, indent=1))
        beside.replace(self.out / "gpu.json")

    def command(self, *words, keep_text=False, until=None):
        """Runs a command within the part's time; returns the JSON object that it prints, or {"error"}. It is ended when `until`
        says so."""
        words = [str(word) for word in words]
        print("+ " + " ".join(words), flush=True)
        left = self.left()
        if left < 5:
            return {"error": "no time left", "command": words}
        begun = time.monotonic()
        log = self.out / "log.txt"
        with open(log, "ab") as stderr:
            stderr.write(("\n+ " + " ".join(words) + "\n").encode())
            stderr.flush()
            said_from = stderr.tell()
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, env=self.env, start_new_session=True)
            try:
                while until and process.poll() is None and time.monotonic() - begun < left:
                    if until():
                        os.killpg(process.pid, signal.SIGKILL)
                        process.communicate()
                        return {}
                    time.sleep(0.02)
                text = process.communicate(timeout=max(0, left - (time.monotonic() - begun)))[0].decode(errors="replace")
            except subprocess.TimeoutExpired:
                # The process and what it started, by its own group.
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return {"error": f"took longer than the {left:.0f} s that were left", "command": words}
        seconds = time.monotonic() - begun
        if process.returncode != 0 and not text.strip().startswith("{"):
            said = [line for line in log.read_bytes()[said_from:].decode(errors="replace").splitlines() if line.strip()]
            # One that says so, else the end.
            told = [line for line in said if "error" in line.lower()][-2:] or said[-3:]
            return {"error": f"exit code {process.returncode}: " + " | ".join(told), "command": words, "seconds": seconds}
        if keep_text:
            return {"text": text, "seconds": seconds}
        try:
            found = json.loads(text[text.index("{"):])
        except ValueError:
            return {"error": "printed no JSON object", "command": words, "text": text[-2000:], "seconds": seconds}
        if process.returncode != 0:
            found["error"] = f"exit code {process.returncode}"
        return {**found, "seconds": seconds}

    def ours(self, *words, backend=None):
        return self.command(self.trainer, "--backend", backend or self.backend, *words)

    def peer(self, script, *words):
        return self.command(sys.executable, HERE / "peers" / script, *words, "--device", self.device)

    def keep(self, part, name, value):
        self.results["parts"].setdefault(part, {})[name] = value
        self.save()
        if "error" in value:
            print(f"  {part} {name}: {value['error']}", flush=True)
        return value


def unpack(program):
    """A program that was sent as PROGRAM.xz, a fifth of its size."""
    packed = Path(program + ".xz")
    if os.path.exists(program) or not packed.exists():
        return
    with lzma.open(packed) as source, open(program, "wb") as target:
        shutil.copyfileobj(source, target)
    os.chmod(program, 0o755)


def environment():
    """The environment with NVRTC and its headers where trainer looks for them, as far as they are somewhere."""
    env = dict(os.environ)
    roots = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    libraries = ["/usr/local/cuda/lib64/libnvrtc.so*"]
    libraries += [f"{root}/nvidia/{part}/lib/libnvrtc.so*" for root in roots for part in ("cuda_nvrtc", "cu13", "cu12")]
    found = [path for pattern in libraries for path in sorted(glob.glob(pattern), key=len)]
    if found and platform.system() == "Linux":
        # Under the name without a version, which wheels lack.
        folder = Path(tempfile.mkdtemp(prefix="nvrtc-"))
        (folder / "libnvrtc.so").symlink_to(found[0])
        own = os.path.dirname(os.path.realpath(found[0]))
        # torch's own NCCL.
        nccl = [f"{root}/nvidia/nccl/lib" for root in roots if os.path.isdir(f"{root}/nvidia/nccl/lib")][:1]
        env["LD_LIBRARY_PATH"] = ":".join([str(folder), own, *nccl, *filter(None, [env.get("LD_LIBRARY_PATH")])])
    if "CUDA_PATH" not in env and not os.path.isdir("/usr/local/cuda/include"):
        headers = [f"{root}/nvidia/{part}" for root in roots for part in ("cu13", "cuda_runtime")]
        env.update({"CUDA_PATH": path for path in headers if os.path.isfile(f"{path}/include/cuda_fp16.h")})
    return env


def facts(bench):
    """What the machine is."""
    bench.keep("facts", "host", {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()})
    bench.keep("facts", "devices", bench.command(bench.trainer, "devices", "--json"))
    smi = shutil.which("nvidia-smi")
    if smi:
        query = "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
        bench.keep("facts", "nvidia-smi", bench.command(smi, query, "--format=csv", keep_text=True))
    code = ("import json, torch; c = torch.cuda.is_available(); p = torch.cuda.get_device_properties(0) if c else None; "
            "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda, 'device': p.name if c else 'cpu', "
            "'multiprocessors': p.multi_processor_count if c else 0, 'memory': p.total_memory if c else 0}))")
    bench.keep("facts", "torch", bench.command(sys.executable, "-c", code))


def trial(bench):
    """The kernels in CUDA C++, each family in a process of its own: what fails is not used by the parts behind."""
    if bench.backend == "cuda":
        bench.keep("trial", "cuda", bench.ours("trial", "--json"))


def selftest(bench):
    """Every kernel against the reference, on CUDA and through Vulkan."""
    only = ["--only", "norm"] if bench.args.rehearse else []
    bench.keep("selftest", bench.backend, failures(bench.ours("selftest", "--json", *only)))
    devices = bench.results["parts"].get("facts", {}).get("devices") or bench.command(bench.trainer, "devices", "--json")
    hardware = [d for d in devices.get("devices", []) if d.get("backend") == "wgpu" and d.get("kind") != "cpu"]
    if bench.backend != "wgpu" and hardware:
        bench.keep("selftest", "wgpu", failures(bench.ours("selftest", "--json", *only, backend="wgpu")))


def failures(report):
    """A selftest's report without what passed."""
    rows = {key: [row for row in report.get(key, []) if not row.get("passed")] for key in ("operations", "parity")}
    count = sum(len(report.get(key, [])) for key in rows)
    return {**{key: value for key, value in report.items() if key not in rows}, "comparisons": count, "not_passed": rows}


def kernels(bench):
    """Products and attention at phi-1's shapes, ours and torch's, and the ceilings that torch reaches."""
    sizes = bench.sizes["kernels"].split()
    theirs = bench.keep("kernels", "torch", bench.peer("pytorch_kernels.py", *sizes))
    ceilings = theirs.get("ceilings", {})
    for dropout in ("0.1", "0"):
        # Attention alone knows of dropout.
        only = "products,head-products,attention" if dropout == "0.1" else "attention"
        words = ["sweep", *bench.sizes["sweep"].split(), "--only", only, "--choice", "none", "--dropout", dropout, "--json"]
        if ceilings:
            words += ["--matmul-tflops", f"{ceilings['matmul_tflops']:.6f}", "--memory-gbs", f"{ceilings['memory_gb_per_s']:.3f}"]
        bench.keep("kernels", f"trainer dropout {dropout}", bench.ours(*words))


def sweep(bench):
    """Every choice of the kernels; what is faster is used by the parts behind."""
    ceilings = bench.results["parts"].get("kernels", {}).get("torch", {}).get("ceilings", {})
    given = []
    if ceilings:
        given = ["--matmul-tflops", f"{ceilings['matmul_tflops']:.6f}", "--memory-gbs", f"{ceilings['memory_gb_per_s']:.3f}"]
    # The longest part of a step gets the most time; a process each, since one that breaks takes its device along.
    groups = {"attention": 0.2, "products": 0.5, "head,head-products": 0.5, "norm,activations,embedding,optimizer,generation": 1.0}
    tune = []
    for group, share in groups.items():
        budget = max(5.0, bench.left() * share - 10.0)
        words = ["sweep", *bench.sizes["sweep"].split(), "--only", group, "--budget", f"{budget:.0f}", *given, "--json"]
        found = bench.keep("sweep", group, bench.ours(*words))
        tune += found.get("tune", [])
    if tune and not bench.tune:
        bench.tune = ",".join(tune)
    bench.keep("sweep", "tune", {"tune": ",".join(tune)})
    print("  --tune " + ",".join(tune), flush=True)


def training(name, size, dropout):
    def part(bench):
        """Whole training steps, ours and PyTorch's in turn."""
        s, runs = bench.sizes, []
        sizes = s[size]
        timing = ["--steps", s["steps"], "--warmup", s["warmup"], "--dropout", dropout]

        def measure(who, sdpa=None):
            if who == "pytorch":
                extra = ["--no-compile"] if bench.args.rehearse else []
                if bench.device == "cuda":
                    extra += ["--seconds", max(5, int(bench.left() / 4))]
                words = [*sizes.split(), "--dtype", s["precision"], *timing, "--sdpa", sdpa, *extra]
                found = bench.peer("pytorch_phi.py", *words)
            else:
                tuned = ["--tune", bench.tune] if who == "trainer tuned" else []
                found = bench.ours(*tuned, "bench", *sizes.split(), "--precision", s["precision"], *timing, "--json")
            run = {"who": f"{who} {sdpa}" if sdpa else who, **found}
            runs.append(run)
            bench.keep(name, "runs", {"dropout": dropout, "sizes": sizes, "runs": runs})
            if "error" in run:
                print(f"  {run['who']}: {run['error']}", flush=True)
            else:
                print(f"  {run['who']}: {run['tokens_per_s']:.0f} tokens/s, {run['step_ms_median']:.1f} ms", flush=True)
            return found

        ours = ["trainer"] + (["trainer tuned"] if bench.tune else [])
        for round_ in range(bench.args.rounds):
            if round_ > 0 and bench.left() < 45:
                break
            found = measure(ours[0])
            if round_ == 0 and "error" in found and "--micro-batch 16" in sizes:
                # Too large for this GPU, most likely: both sides take half as many sequences, twice as often.
                sizes = sizes.replace("--micro-batch 16 --accumulate 4", "--micro-batch 8 --accumulate 8")
                measure(ours[0])
            for sdpa in bench.args.sdpa.split(","):
                out = measure("pytorch", sdpa)
                if round_ == 0 and "out of memory" in out.get("error", "").lower() and "--micro-batch 16" in sizes:
                    sizes = sizes.replace("--micro-batch 16 --accumulate 4", "--micro-batch 8 --accumulate 8")
                    measure(ours[0])
                    measure("pytorch", sdpa)
            for who in ours[1:]:
                measure(who)
        by_part = ["bench", *sizes.split(), "--precision", s["precision"], "--dropout", dropout, "--steps", 1, "--warmup", 1]
        ceilings = bench.results["parts"].get("kernels", {}).get("torch", {}).get("ceilings", {})
        if ceilings:
            by_part += ["--matmul-tflops", f"{ceilings['matmul_tflops']:.6f}", "--memory-gbs", f"{ceilings['memory_gb_per_s']:.3f}"]
        tuned = ["--tune", bench.tune] if bench.tune else []
        bench.keep(name, "by part", bench.ours(*tuned, *by_part, "--by-part", "--json"))
    return part


def second_start(bench):
    """How long a process takes until its first step is over, with no kernel compiled before and with all of them."""
    folder = tempfile.mkdtemp(prefix="kernels-")
    words = ["bench", *bench.sizes["phi-1-small"].split(), "--precision", bench.sizes["precision"], "--steps", 1, "--warmup", 0]
    before = dict(bench.env)
    # A trial is measured by its own part.
    bench.env.update({"TRAINER_KERNEL_CACHE": folder, "TRAINER_TRIAL": "off"})
    for which in ("first", "second"):
        bench.keep("start", which, bench.ours(*words, "--json"))
    bench.env = before
    shutil.rmtree(folder, ignore_errors=True)


def decode(bench):
    """Generation at batch 1, ours and transformers', of the same random weights."""
    work = Path(tempfile.mkdtemp(prefix="decode-"))
    tokens = bench.sizes["decode"]
    steps = [
        ["exercises", "--out", work / "text", "--count", 400, "--json"],
        ["prepare", work / "text/train.jsonl", "--out", work / "data", "--json"],
        ["train", *bench.sizes["model"].split(), "--data", work / "data", "--out", work / "run", "--set", "validation.every=0"],
        ["export", work / "run", "--out", work / "model", "--dtype", "fp16" if bench.device == "cuda" else "fp32", "--json"],
    ]
    for words in steps:
        made = bench.command(bench.trainer, "--backend", bench.backend, *words, keep_text=True)
        if "error" in made:
            return bench.keep("decode", "model", made)
    prompt = "def add(a, b):\n    return a + b\n\n\ndef multiply(a, b):\n"
    words = ["generate", "--model", work / "model", "--prompt", prompt, "--max-tokens", tokens, "--precision", bench.sizes["precision"]]
    for round_ in range(2):
        bench.keep("decode", f"trainer {round_ + 1}", without_text(bench.ours(*words, "--json")))
        theirs = ["--model", work / "model", "--prompt", prompt, "--tokens", tokens, "--dtype", bench.sizes["precision"]]
        bench.keep("decode", f"transformers {round_ + 1}", bench.peer("hf_generate.py", *theirs))
    shutil.rmtree(work, ignore_errors=True)


def prepared(bench, part, work):
    """The sources of this machine's Python as tokens."""
    words = ["prepare", sysconfig.get_paths()["stdlib"], "--out", work / "data", "--json"]
    made = bench.command(bench.trainer, "--backend", bench.backend, *words)
    if "error" in made:
        bench.keep(part, "data", made)
    return "error" not in made


def metrics(run):
    """The steps that a run has written so far."""
    path = Path(run) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [step for step in map(json.loads, lines) if "loss" in step]


def curve(bench):
    """Losses on real code from the same weights on the same sequences without dropout: fp16, fp32, and PyTorch's fp16."""
    work = Path(tempfile.mkdtemp(prefix="curve-"))
    sizes = [*bench.sizes["curve"].split(), "--set", "model.dropout=0", "--set", "validation.every=0", "--set", "checkpoint.every=0"]
    train = ["train", *sizes, "--data", work / "data"]
    if not prepared(bench, "curve", work):
        return
    for words in ([*train, "--set", "train.steps=1", "--out", work / "start", "--json"],
                  ["export", work / "start", "--out", work / "model", "--dtype", "fp32", "--json"]):
        made = bench.ours(*words)
        if "error" in made:
            return bench.keep("curve", "model", made)
    losses = {}
    for precision in ("fp16", "fp32"):
        run = work / precision
        made = bench.ours(*train, "--init-from", work / "model", "--out", run, "--set", f"train.precision={precision}", "--json")
        losses[f"trainer {precision}"] = [step["loss"] for step in metrics(run)]
        bench.keep("curve", f"trainer {precision}", {**made, "losses": losses[f"trainer {precision}"]})
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    # A processor's autocast knows no fp16.
    dtype = "fp16" if bench.device == "cuda" else "fp32"
    files = ["--model", work / "model", "--run", work / "fp16", "--data", work / "data"]
    theirs = bench.keep("curve", f"pytorch {dtype}", bench.peer("pytorch_curve.py", *files, "--dtype", dtype))
    losses[f"pytorch {dtype}"] = theirs.get("losses", [])
    shutil.rmtree(work, ignore_errors=True)
    apart = {}
    for other in ("trainer fp32", f"pytorch {dtype}"):
        # Means of 25 steps, as in RESULTS.md's comparison of fp16 with fp32.
        pairs = list(zip(losses["trainer fp16"], losses[other]))
        windows = [pairs[first:first + 25] for first in range(0, len(pairs), 25)]
        sums = [[sum(column) for column in zip(*window)] for window in windows]
        apart[other] = [abs(ours - other) / other for ours, other in sums]
    bench.keep("curve", "apart", {"of": "trainer fp16, means of 25 steps, relative", **apart})


def vulkan(bench):
    """The same steps on CUDA and through Vulkan, in turn."""
    devices = bench.results["parts"].get("facts", {}).get("devices") or bench.command(bench.trainer, "devices", "--json")
    hardware = [d for d in devices.get("devices", []) if d.get("backend") == "wgpu" and (bench.args.rehearse or d.get("kind") != "cpu")]
    if not hardware:
        return bench.keep("vulkan", "devices", {"error": "no Vulkan device but the processor: is libvulkan there, and the GPU's driver for it?"})
    words = ["bench", *bench.sizes["phi-1-small"].split(), "--precision", bench.sizes["precision"], "--dropout", "0.1",
             "--steps", bench.sizes["steps"], "--warmup", bench.sizes["warmup"], "--json"]
    for round_ in range(2):
        for backend in (bench.backend, "wgpu"):
            found = bench.keep("vulkan", f"{backend} {round_ + 1}", bench.ours(*words, backend=backend))
            print(f"  {backend}: {found.get('tokens_per_s', 0):.0f} tokens/s", flush=True)


def ranks(bench):
    """A step with and without the parallel path, one device: through NCCL with one rank, and alone."""
    work = Path(tempfile.mkdtemp(prefix="ranks-"))
    if not prepared(bench, "ranks", work):
        return
    sizes = [*bench.sizes["ranks"].split(), "--set", f"train.precision={bench.sizes['precision']}", "--set", "validation.every=0",
             "--set", "checkpoint.every=0", "--data", work / "data"]
    steps = int(bench.sizes["ranks"].split("train.steps=")[1].split()[0])
    through = ["--collectives", "nccl" if bench.backend == "cuda" else "host"]
    for round_ in range(2):
        for who, words in (("alone", []), ("one rank", through)):
            run = work / f"{who} {round_}"
            # Ended before its last step, and so before it writes a checkpoint of all of phi-1.
            found = bench.command(bench.trainer, "--backend", bench.backend, "train", *sizes, *words, "--out", run,
                                  until=lambda: len(metrics(run)) >= steps - 1)
            times = [after["seconds"] - before["seconds"] for before, after in zip(metrics(run)[2:], metrics(run)[3:])]
            if times:
                found = {"step_s_median": statistics.median(times), "step_s": times}
                print(f"  {who}: {found['step_s_median']:.3f} s a step", flush=True)
            bench.keep("ranks", f"{who} {round_ + 1}", found)
            shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def without_text(report):
    return {key: value for key, value in report.items() if key != "completions"}


# In their order, with the seconds that each may take.
PARTS = {
    "facts": (facts, 40),
    "trial": (trial, 150),
    "selftest": (selftest, 170),
    "kernels": (kernels, 90),
    "sweep": (sweep, 280),
    "phi-1": (training("phi-1", "phi-1", "0.1"), 420),
    "phi-1-no-dropout": (training("phi-1-no-dropout", "phi-1", "0"), 420),
    "phi-1-small": (training("phi-1-small", "phi-1-small", "0.1"), 200),
    "phi-1-small-no-dropout": (training("phi-1-small-no-dropout", "phi-1-small", "0"), 200),
    "start": (second_start, 90),
    "decode": (decode, 120),
    "curve": (curve, 300),
    "vulkan": (vulkan, 120),
    "ranks": (ranks, 240),
}
# What fits ten minutes: the rest wants further calls.
TEN_MINUTES = "facts,trial,kernels,phi-1,phi-1-small,start,decode,selftest,sweep"


def rows(results):
    """Markdown for benches/RESULTS.md."""
    parts, lines = results["parts"], []
    device = parts.get("facts", {}).get("torch", {}).get("device", "?")
    table = []
    for name in ("phi-1", "phi-1-no-dropout", "phi-1-small", "phi-1-small-no-dropout"):
        runs = parts.get(name, {}).get("runs")
        if not runs:
            continue
        best = {}
        for run in runs["runs"]:
            if "error" not in run:
                best.setdefault(run["who"], []).append(run)
        median = lambda who, key: statistics.median([run[key] for run in best[who] if run.get(key) is not None] or [0.0])
        rates = {who: median(who, "tokens_per_s") for who in best}
        peers = {who: rate for who, rate in rates.items() if who.startswith("pytorch")}
        fastest = max(peers, key=peers.get) if peers else None
        for who in best:
            ratio = f"{rates[who] / rates[fastest]:.3f}" if fastest and who.startswith("trainer") else ""
            mark = " (fastest)" if who == fastest else ""
            table.append(f"| {name} | {runs['dropout']} | {who}{mark} | {rates[who]:.0f} | {median(who, 'step_ms_median'):.1f} | "
                         f"{median(who, 'model_tflops'):.4g} | {median(who, 'peak_gib'):.2f} | {ratio} |")
    if table:
        lines += [f"Training steps on {device}:", "", "| model | dropout | who | tokens/s | step ms | model TFLOP/s | peak GiB | over PyTorch's fastest |",
                  "|---|---|---|---|---|---|---|---|", *table, ""]
    torch = parts.get("kernels", {}).get("torch", {})
    ours = {}
    for dropout in ("0.1", "0"):
        for operation in parts.get("kernels", {}).get(f"trainer dropout {dropout}", {}).get("operations", []):
            times = [variant["ms"] for variant in operation["variants"] if variant.get("ms")]
            key = f"{operation['operation']} dropout {dropout}" if "attention" in operation["operation"] else operation["operation"]
            ours[key] = min(times) if times else None
    table = []
    for row in torch.get("kernels", []):
        own, theirs = ours.get(row["name"]), row["ms"]
        ratio = f"{theirs / own:.3f}" if own else ""
        table.append(f"| {row['name']} | {'' if not own else f'{own:.4f}'} | {theirs:.4f} ({row['how']}) | {row['tflops']:.4g} | {ratio} |")
    if table:
        ceilings = torch["ceilings"]
        lines += [f"Kernels; ceilings by torch in the same run: {ceilings['matmul_tflops']:.4g} TFLOP/s, {ceilings['memory_gb_per_s']:.4g} GB/s:", "",
                  "| operation | ours ms | torch ms | torch TFLOP/s | ours over torch |", "|---|---|---|---|---|", *table, ""]
    decoded = parts.get("decode", {})
    rate = lambda who: [run["tokens_per_s"] for name, run in decoded.items() if name.startswith(who) and "tokens_per_s" in run]
    if rate("trainer") and rate("transformers"):
        own, theirs = statistics.median(rate("trainer")), statistics.median(rate("transformers"))
        lines += [f"Generation at batch 1: {own:.1f} tokens/s, transformers {theirs:.1f}: {own / theirs:.2f} times.", ""]
    families = parts.get("trial", {}).get("cuda", {}).get("families", [])
    told = [f"{f['family']} {'passed' if f['passed'] else 'REFUSED: ' + str(f['why'])} ({f['seconds']:.1f} s)" for f in families]
    if told:
        lines += [f"Trial: {'; '.join(told)}.", ""]
    start = parts.get("start", {})
    if all("seconds" in start.get(which, {}) for which in ("first", "second")):
        lines += [f"First start to the end of a step {start['first']['seconds']:.1f} s, second {start['second']['seconds']:.1f} s.", ""]
    apart = parts.get("curve", {}).get("apart", {})
    for other in [name for name in apart if name.startswith(("trainer", "pytorch")) and apart[name]]:
        lines += [f"Loss curve, trainer fp16 beside {other}, means of 25 steps: at most {max(apart[other]):.2g} apart, "
                  f"on average {statistics.mean(apart[other]):.2g} (relative; goal 0.01).", ""]
    rates = {}
    for name, run in parts.get("vulkan", {}).items():
        if "tokens_per_s" in run:
            rates.setdefault(name.split()[0], []).append(run["tokens_per_s"])
    if len(rates) == 2:
        (first, own), (second, other) = ((name, statistics.median(found)) for name, found in rates.items())
        lines += [f"phi-1-small, {second} over {first}: {other:.0f} and {own:.0f} tokens/s, {other / own:.3f}.", ""]
    medians = {who: [run["step_s_median"] for name, run in parts.get("ranks", {}).items() if name.startswith(who) and "step_s_median" in run]
               for who in ("alone", "one rank")}
    if all(medians.values()):
        own, other = (statistics.median(medians[who]) for who in ("alone", "one rank"))
        lines += [f"One rank's exchanges: a step of {other:.4f} s beside {own:.4f} s alone, {other / own - 1:+.2%}.", ""]
    failed = [f"{part}, {name}: {value['error']}" for part, found in parts.items() for name, value in found.items() if "error" in value]
    failed += [f"{part}, {run['who']}: {run['error']}" for part, found in parts.items()
               for run in found.get("runs", {}).get("runs", []) if "error" in run]
    if failed:
        lines += ["Not measured:", "", *[f"- {line[:300]}" for line in failed], ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=TEN_MINUTES, help=f"of {', '.join(PARTS)} [%(default)s]")
    parser.add_argument("--budget", type=float, default=570.0, help="seconds for all of them [%(default)s]")
    parser.add_argument("--out", default=os.environ.get("OUT", "runs/gpu"), help="folder for the results [%(default)s]")
    parser.add_argument("--tune", default="", help="kernel choices, as trainer sweep prints them")
    parser.add_argument("--rounds", type=int, default=2, help="times that both sides are measured, as time allows [%(default)s]")
    parser.add_argument("--sdpa", default="auto,flash,cudnn", help="attention of PyTorch's [%(default)s]")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes")
    args = parser.parse_args()
    chosen = args.parts.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        sys.exit(f"error: no part is called {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    if args.rehearse:
        args.sdpa, args.rounds = "auto", min(args.rounds, 1)
    bench = Bench(args)
    unpack(bench.trainer)
    if not os.access(bench.trainer, os.X_OK):
        sys.exit(f"error: {bench.trainer} is missing: run make build, or name the binary with TRAINER")
    begun = time.monotonic()
    for name in chosen:
        part, seconds = PARTS[name]
        bench.part_end = time.monotonic() + seconds
        print(f"== {name}: at most {max(0.0, bench.left()):.0f} s", flush=True)
        started = time.monotonic()
        try:
            part(bench)
        except Exception as error:  # One part's trouble is not the others'.
            bench.keep(name, "broke", {"error": f"{type(error).__name__}: {error}"})
        bench.keep(name, "took", {"took_s": time.monotonic() - started})
    bench.results["seconds"] = time.monotonic() - begun
    bench.save()
    text = rows(bench.results)
    (bench.out / "gpu.md").write_text(text)
    print(f"== {bench.results['seconds']:.0f} s; {bench.out}/gpu.json, {bench.out}/gpu.md\n\n{text}")


if __name__ == "__main__":
    main()
