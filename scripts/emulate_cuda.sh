#!/bin/sh
# Runs the program on the CUDA driver that executes PTX on the CPU (tests/emulator). No GPU is needed; it is slow.
# Usage: emulate_cuda.sh COMMAND [ARGUMENTS]          as in: emulate_cuda.sh selftest --only attention
#
# CUDA_EMULATOR_CAPABILITY=80|90 is the device (80); tests/emulator/src/driver.rs lists the other variables.
set -eu
cd "$(dirname "$0")/.."
[ -n "${HOME:-}" ] && PATH="$PATH:$HOME/.cargo/bin"
wheels=target/cuda-wheels
folder=target/emulated-cuda
sh scripts/setup.sh build
sh scripts/setup.sh wheels "$wheels" || {
    echo "error: NVIDIA's compilers are needed in $wheels" >&2
    exit 1
}
cargo build --release --bin trainer
cargo build --release -p cuda-emulator
mkdir -p "$folder/toolkit/include"
cp target/release/libcuda_emulator.so "$folder/libcuda.so.1"
for part in cuda_nvrtc cuda_runtime cuda_nvcc cuda_cccl; do
    cp -R "$wheels/nvidia/$part/include/." "$folder/toolkit/include"
done
export LD_LIBRARY_PATH="$folder:$wheels/nvidia/cuda_nvrtc/lib" CUDA_PATH="$PWD/$folder/toolkit"
export CUDA_EMULATOR_EXECUTE="${CUDA_EMULATOR_EXECUTE:-1}"
# It would take minutes; TRAINER_TRIAL=600 has one.
export TRAINER_TRIAL="${TRAINER_TRIAL:-off}"
exec target/release/trainer --backend cuda "$@"
