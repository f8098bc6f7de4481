#!/usr/bin/env python3
"""Instructions of attention's inner loops a score and lane, in ptxas' code: a bound on speed that needs no GPU.

    mkdir /tmp/ptx; CUDA_EMULATOR_CAPABILITY=90 CUDA_EMULATOR_DIR=/tmp/ptx TRAINER_KERNEL_CACHE=off \\
        sh scripts/emulate_cuda.sh sweep --preset laptop --seq 192 --micro-batch 1 --precision fp16 --only attention
    python3 scripts/count_instructions.py /tmp/ptx sm_90a --nvdisasm NVDISASM

ptxas is that of `scripts/setup.sh test`; nvdisasm is in NVIDIA's toolkit, and in triton's wheel (backends/nvidia/bin).
"""

import argparse
import collections
import pathlib
import re
import subprocess
import tempfile

PTXAS = pathlib.Path(__file__).parent.parent / "target/cuda-wheels/nvidia/cuda_nvcc/bin/ptxas"
LABEL = re.compile(r"\s*(\.L_x_\d+):")
INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)(.*)")
# What only blocks on the diagonal go through selects each of a lane's scores.
SELECTS = 30


def code(ptx, arch, nvdisasm):
    """The kernel's instructions with the instruction that a branch goes to, registers a thread, and spilled bytes."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        command = [PTXAS, f"-arch={arch}", "-v", ptx, "-o", cubin.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        disassembly = subprocess.run([nvdisasm, "-c", cubin.name], capture_output=True, text=True, check=True).stdout
    labels, found = {}, []
    for line in disassembly.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(found)
        elif instruction := INSTRUCTION.match(line):
            target = re.search(r"\.L_x_\d+", instruction[2]) if instruction[1].startswith("BRA") else None
            found.append((instruction[1].split(".")[0], target and target[0]))
    number = lambda pattern: int(re.search(pattern, report)[1])
    instructions = [(name, labels.get(target)) for name, target in found]
    return instructions, number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores")


def count(instructions):
    """Instructions a score off the diagonal, in the smallest loop with products and exponentials; `None` without one."""
    names = lambda first, last: collections.Counter(name for name, _ in instructions[first:last])
    branches = [(at, target) for at, (_, target) in enumerate(instructions) if target is not None]
    loops = [(target, at + 1) for at, target in branches if target <= at]
    products = [loop for loop in loops if names(*loop)["HMMA"] + names(*loop)["HGMMA"] > 0 and names(*loop)["MUFU"] >= 16]
    if not products:
        return None
    first, last = min(products, key=lambda loop: loop[1] - loop[0])
    # Exponentials: one a score, and a few of rows.
    scores = names(first, last)["MUFU"] // 16 * 16
    diagonal = sum(
        target - at - 1
        for at, target in branches
        if first <= at < target < last and names(at, target)["FSEL"] >= SELECTS and not names(at, target)["MUFU"]
    )
    # A loop in it that draws a second call of Philox, as the first.
    again = sum(end - start for start, end in loops if first < start and end < last)
    return (last - first - diagonal + again) / scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="PTX as the emulated driver writes it (CUDA_EMULATOR_DIR)")
    parser.add_argument("arch", help="sm_80 or sm_90a, as the PTX was made for")
    parser.add_argument("--nvdisasm", default="nvdisasm")
    options = parser.parse_args()
    print("instructions a score, registers, spilled bytes, kernel")
    for ptx in sorted(options.folder.glob("*.ptx")):
        entry = re.search(r"\.entry (\w+)", ptx.read_text())[1]
        if re.match(r"attention_|(forward|dq|dk_dv)_kernel", entry):
            instructions, registers, spilled = code(ptx, options.arch, options.nvdisasm)
            if scores := count(instructions):
                print(f"{scores:>20.1f} {registers:>10} {spilled:>14}  {entry} ({ptx.stem})")


if __name__ == "__main__":
    main()
