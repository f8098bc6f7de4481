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

# Both go on where an earlier call of this script was stopped.
$trainer --backend cpu train --preset laptop --data "$out/code" --out "$out/base" --set train.steps="${BASE_STEPS:-600}"
$trainer --backend cpu train --preset laptop-finetune --data "$out/exercise-data" --out "$out/finetuned" \
    --init-from "$out/base" --set train.steps="${FINETUNE_STEPS:-600}"

for model in base finetuned; do
    $trainer --backend cpu humaneval --model "$out/$model/checkpoints/latest" --problems "$out/exercises/held-out.jsonl" \
        --samples 1 --temperature 0 --out "$out/$model.jsonl"
    $trainer humaneval --problems "$out/exercises/held-out.jsonl" --score "$out/$model.jsonl" --json > "$out/$model.json"
done

# The table of docs/finetune.md, with 95% Wilson intervals, and its plot.
python3 - "$out" <<'END' | tee "$out/table.md"
import json, math, sys
out = sys.argv[1]
print("| model | problems solved | pass@1 | 95% interval |\n|---|---|---|---|")
for model in ("base", "finetuned"):
    score = json.load(open(f"{out}/{model}.json"))
    n, passed = score["samples"], score["passed"]
    p, z2 = passed / n, 1.96**2
    centre, half = p + z2 / (2 * n), 1.96 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (max(0.0, (centre + sign * half) / (1 + z2 / n)) for sign in (-1, 1))
    print(f"| {model} | {passed} of {n} | {100 * p:.1f}% | {100 * low:.1f} to {100 * high:.1f}% |")
END
$trainer report "$out/base" "$out/finetuned" --png "$out/losses.png"
