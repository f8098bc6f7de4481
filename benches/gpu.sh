#!/bin/sh
# trainer beside PyTorch on one NVIDIA GPU, in parts, each meant to fit into ten minutes (not yet run on a GPU): needs a
# built binary and a python3 with torch, nothing else (no Rust, no network). Every part can be chosen, has a time of its own,
# and does not stop the others where it fails. Writes gpu.json after each measurement, and Markdown rows for
# benches/RESULTS.md at the end.
#
#   sh benches/gpu.sh                                      what is meant to fit into ten minutes together
#   sh benches/gpu.sh --parts facts,trial,selftest,kernels,sweep     a first call; then a second, and a third:
#   sh benches/gpu.sh --parts phi-1 --tune NAME=VALUE,...      what the sweep printed
#   sh benches/gpu.sh --parts phi-1-no-dropout,phi-1-small,decode
#   sh benches/gpu.sh --parts curve,vulkan,ranks           losses beside fp32 and PyTorch; Vulkan; the parallel path on one GPU
#   BACKEND=wgpu sh benches/gpu.sh --rehearse              the same on tiny sizes, on a machine without a GPU (or BACKEND=cpu)
#
# TRAINER names the binary [target/release/trainer], PYTHON the Python [python3], OUT the folder for results [runs/gpu]. Where
# there is only TRAINER.xz (xz -kT0 target/release/trainer: a fifth of the size to send), it is unpacked.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benches/gpu.py "$@"
