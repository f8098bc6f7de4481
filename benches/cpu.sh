#!/bin/sh
# The CPU backend beside PyTorch: training steps of the same model on the same cores, alternating, so that what else the
# machine does hits both. Hidden 128, 4 layers, 2 heads, vocabulary 2048, 4 x 256 tokens, fp32, dropout 0.1.
# Prints a Markdown row a round, one with the medians, and one JSON object. Needs a release build and torch.
#
#   PYTHON=python-with-torch ROUNDS=5 STEPS=30 TRAINER=target/release/trainer sh benches/cpu.sh
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
trainer=${TRAINER:-target/release/trainer}
rounds=${ROUNDS:-5}
steps=${STEPS:-30}
[ -x "$trainer" ] || { echo "error: $trainer is missing: run make build first" >&2; exit 2; }
"$python" -c 'import torch' 2>/dev/null || { echo "error: $python has no torch: set PYTHON to one that has" >&2; exit 2; }

sizes="--hidden 128 --layers 4 --heads 2 --vocab 2048 --seq 256 --micro-batch 4 --accumulate 1"
measure() {
    round=0
    while [ "$round" -lt "$rounds" ]; do
        round=$((round + 1))
        # shellcheck disable=SC2086 # sizes are words
        "$trainer" --backend cpu bench $sizes --precision fp32 --dropout 0.1 --steps "$steps" --warmup 5 --json 2>/dev/null
        # shellcheck disable=SC2086
        "$python" benches/peers/pytorch_phi.py $sizes --dropout 0.1 --dtype fp32 --device cpu --no-compile \
            --steps "$steps" --warmup 5
    done
}

# A failed measurement ends the pipe early; the script then finds fewer objects than rounds, and fails.
measure | "$python" -c '
import json, os, platform, statistics, sys

rounds = int(sys.argv[1])
decoder, text, ours, peer = json.JSONDecoder(), "", [], []
print("| round | trainer tokens/s | step ms | PyTorch tokens/s | step ms | ratio |\n|---|---|---|---|---|---|")
for line in sys.stdin:
    text += line
    try:
        found, _ = decoder.raw_decode(text.lstrip())
    except ValueError:
        continue  # the object goes on in the next line
    text = ""
    (ours if len(ours) == len(peer) else peer).append(found)
    if len(ours) == len(peer):
        a, b = ours[-1], peer[-1]
        row = (len(ours), a["tokens_per_s"], a["step_ms_median"], b["tokens_per_s"], b["step_ms_median"])
        print("| %d | %.0f | %.1f | %.0f | %.1f | %.2f |" % (*row, row[1] / row[3]), flush=True)
if text.strip() or len(peer) != rounds:
    sys.exit("error: a measurement failed: %d of %d rounds are whole" % (len(peer), rounds))
if ours[0]["params"] != peer[0]["params"]:
    sys.exit("error: not the same model: %d and %d parameters" % (ours[0]["params"], peer[0]["params"]))
median = lambda values: statistics.median(list(values))
rates = [median(x["tokens_per_s"] for x in side) for side in (ours, peer)]
times = [median(x["step_ms_median"] for x in side) for side in (ours, peer)]
ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(ours, peer)]
print("| median | %.0f | %.1f | %.0f | %.1f | %.2f |" % (rates[0], times[0], rates[1], times[1], median(ratios)))
print(json.dumps({
    "trainer_tokens_per_s": rates[0], "peer_tokens_per_s": rates[1], "ratio_median": median(ratios),
    "ratio_min": min(ratios), "ratio_max": max(ratios), "rounds": rounds, "peer": peer[0]["peer"],
    "params": ours[0]["params"], "cores": os.cpu_count(), "cpu": ours[0]["device"],
}))
' "$rounds"
