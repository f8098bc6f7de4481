#!/bin/sh
# Compares the tiles of the Hopper product (shaders/cuda/gemm.cu) in whole training steps: a line of tokens/s for each.
# Usage: wgmma.sh TRAINER [BENCH OPTIONS]     default options: phi-1's widths, four blocks, fp16
#
# A blueprint is rows x columns x stages x rows of tiles in a group x cluster; BLUEPRINTS names others than these.
set -eu
trainer=$1
shift
[ $# -gt 0 ] || set -- --hidden 2048 --layers 4 --heads 32 --vocab 51200 --seq 2048 --micro-batch 16 --accumulate 1 \
    --precision fp16 --dropout 0 --steps 10 --warmup 3
default="off auto 128x256x4x16x1 128x256x4x4x2 128x256x4x8x2 128x256x4x16x2 256x128x4x8x1 256x128x4x4x2 128x128x6x16x1
    128x128x6x8x2 128x64x8x16x1"
for blueprint in ${BLUEPRINTS:-$default}; do
    TRAINER_WGMMA=$blueprint "$trainer" --backend cuda bench "$@" --json |
        sed -n "s/^ *\"tokens_per_s\": \([0-9.]*\).*/$blueprint \1/p"
done
