#!/bin/sh
# The paper's path at laptop size: a base model on plain code, finetuned on exercises, both scored on exercises that neither
# has seen, in HumanEval's format. Writes runs, samples and scores into the given folder.
#
#   sh scripts/finetune_example.sh [FOLDER] [trainer's path]
#
# BASE_STEPS and FINETUNE_STEPS shorten it, CODE names other code than the standard library, HELD_OUT other than 192 problems.
set -eu
out=${1:-runs/finetune-example}
trainer=${2:-target/release/trainer}
mkdir -p "$out"

library=${CODE:-$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')}
[ -d "$out/code" ] || $trainer prepare "$library" --out "$out/code"
[ -d "$out/exercises" ] || $trainer exercises --out "$out/exercises" --held-out "${HELD_OUT:-192}"
[ -d "$out/exercise-data" ] || $trainer prepare "$out/exercises/train.jsonl" --out "$out/exercise-data"

[ -d "$out/base" ] || $trainer --backend cpu train --preset laptop --data "$out/code" --out "$out/base" \
    --set train.steps="${BASE_STEPS:-600}" --set checkpoint.every=600
[ -d "$out/finetuned" ] || $trainer --backend cpu train --preset laptop-finetune --data "$out/exercise-data" --out "$out/finetuned" \
    --init-from "$out/base" --set train.steps="${FINETUNE_STEPS:-600}"

for model in base finetuned; do
    $trainer --backend cpu humaneval --model "$out/$model/checkpoints/latest" --problems "$out/exercises/held-out.jsonl" \
        --samples 1 --temperature 0 --out "$out/$model.jsonl"
    $trainer humaneval --problems "$out/exercises/held-out.jsonl" --score "$out/$model.jsonl" --json > "$out/$model.json"
done
