#!/usr/bin/env python3
"""A long run of `trainer train`: is memory flat, is every step about as long as the others?

Trains the demo model on the built-in exercises with dropout, accumulation, validation and checkpoints for as long as it is told,
reads the process's resident memory every two seconds (into memory.tsv: seconds, MiB), and prints one row for docs/reliability.md: the slope of memory by
least squares and the slowest step beside the median. Exits 1 where memory grows by more than --most-growth a hour, or a step
takes more than three medians.

    python3 benches/soak.py --trainer target/release/trainer --backend cpu --minutes 30 --out /tmp/soak-cpu
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

WARM_UP_SHARE = 0.2  # of the time: allocators and caches fill


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return None


def slope(points):
    """Least squares, of (x, y)."""
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainer", default="target/release/trainer")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", required=True, help="an empty folder, or none yet")
    parser.add_argument("--most-growth", type=float, default=16, help="MiB an hour")
    parser.add_argument("--set", action="append", default=[], help="as of trainer train")
    args = parser.parse_args()

    os.makedirs(args.out, exist_ok=True)
    exercises, data, run = (os.path.join(args.out, name) for name in ("exercises", "data", "run"))
    subprocess.run([args.trainer, "exercises", "--out", exercises], check=True, stdout=subprocess.DEVNULL)
    text = os.path.join(exercises, "train.jsonl")
    subprocess.run([args.trainer, "prepare", text, "--tokenizer", "bytes", "--out", data], check=True, stdout=subprocess.DEVNULL)
    command = [args.trainer, "--backend", args.backend, "train", "--preset", "demo", "--data", data, "--out", run]
    sets = ["train.steps=10000000", "model.dropout=0.1", "train.batch=8", "train.micro_batch=4", "optimizer.lr=1e-4",
            "validation.every=50", "validation.batches=2", "checkpoint.every=25", "checkpoint.keep_last=2"] + args.set
    for one in sets:
        command += ["--set", one]
    memory = []
    with open(os.path.join(args.out, "log"), "w") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None and time.monotonic() - started < 60 * args.minutes:
            time.sleep(2)
            if process.poll() is None:
                memory.append(((time.monotonic() - started) / 3600, resident_mib(process.pid)))
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    hours = (time.monotonic() - started) / 3600
    if code != 0:
        sys.exit(f"trainer ended with {code}: see {args.out}/log")

    with open(os.path.join(args.out, "memory.tsv"), "w") as series:
        series.writelines(f"{3600 * at:.0f}\t{mib:.1f}\n" for at, mib in memory)
    steps, before = [], 0
    with open(os.path.join(run, "metrics.jsonl")) as metrics:
        for record in map(json.loads, metrics):
            if "tokens_per_s" in record:
                steps.append((record["tokens"] - before) / record["tokens_per_s"])
                before = record["tokens"]
    warm = [point for point in memory if point[0] > WARM_UP_SHARE * hours]
    growth = slope(warm)
    median, slowest = statistics.median(steps[1:]), max(steps[1:])
    slow = sum(step > 3 * median for step in steps[1:])
    print(f"| {args.backend} | {60 * hours:.0f} min, {len(steps)} steps | {warm[0][1]:.0f} to {warm[-1][1]:.0f} MiB | "
          f"{growth:+.2f} MiB an hour | {1e3 * median:.1f} ms | {1e3 * slowest:.1f} ms ({slowest / median:.2f}) | {slow} |")
    sys.exit(growth > args.most_growth or slow > 0)


main()
