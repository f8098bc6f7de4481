"""Writes HumanEval samples of mixed quality: the canonical solutions, whole and damaged in the ways that models damage code.

python benches/peers/humaneval_samples.py HumanEval.jsonl.gz samples.jsonl [--samples 6] [--seed 1]

Each problem gets its canonical solution, then samples - 1 damaged ones. A fixed share loops without an end or sleeps, so that
the time limit is met too. What a damage does to the verdict is not known here: two scorers are compared by their own.
"""

import argparse
import gzip
import json
import random
import re

OPERATORS = [("+", "-"), ("-", "+"), ("*", "+"), ("<", "<="), (">", ">="), ("==", "!="), (" and ", " or "), ("//", "/"), ("%", "//")]


def dropped_line(lines, rng):
    del lines[rng.randrange(len(lines))]


def repeated_line(lines, rng):
    at = rng.randrange(len(lines))
    lines.insert(at, lines[at])


def swapped_lines(lines, rng):
    at = rng.randrange(max(1, len(lines) - 1))
    lines[at : at + 2] = reversed(lines[at : at + 2])


def other_operator(lines, rng):
    places = [(i, old, new) for i, line in enumerate(lines) for old, new in OPERATORS if old in line]
    if places:
        i, old, new = rng.choice(places)
        lines[i] = lines[i].replace(old, new, 1)


def other_constant(lines, rng):
    places = [(i, found) for i, line in enumerate(lines) for found in re.finditer(r"\b\d+\b", line)]
    if places:
        i, found = rng.choice(places)
        lines[i] = lines[i][: found.start()] + str(int(found.group()) + rng.choice([-1, 1, 10])) + lines[i][found.end() :]


def other_name(lines, rng):
    places = [(i, found) for i, line in enumerate(lines) for found in re.finditer(r"\b[a-z_]{3,}\b", line)]
    if places:
        i, found = rng.choice(places)
        lines[i] = lines[i][: found.start()] + found.group()[:-1] + lines[i][found.end() :]


def other_indentation(lines, rng):
    at = rng.randrange(len(lines))
    lines[at] = lines[at][4:] if rng.random() < 0.5 else " " * rng.choice([1, 4]) + lines[at]


def truncated(lines, rng):
    text = "".join(lines)
    lines[:] = [text[: rng.randrange(1, len(text) + 1)]]


def endless(lines, rng):
    lines.insert(0, rng.choice(["    while True: pass\n", "    import time; time.sleep(1000)\n", "    while True:\n        try:\n            pass\n        except Exception:\n            pass\n"]))


def raising(lines, rng):
    lines.insert(rng.randrange(len(lines)), "    raise " + rng.choice(["ValueError('no')", "NotImplementedError", "KeyError(3)", "StopIteration", "KeyboardInterrupt"]) + "\n")


def leaving(lines, rng):
    lines.insert(0, rng.choice(["    import sys; sys.exit(0)\n", "    raise SystemExit\n", "    exit()\n", "    quit(0)\n", "    import os; os._exit(0)\n"]))


def empty(lines, rng):
    lines[:] = [rng.choice(["    pass\n", "", "\n", "    return None\n", "    ...\n", "    return\n"])]


def reading(lines, rng):
    lines.insert(0, rng.choice(["    input()\n", "    import sys; sys.stdin.read()\n", "    open('no such file')\n"]))


def harmless(lines, rng):
    lines.insert(
        0,
        rng.choice(
            ["    print('debugging', 1)\n", "    import math, collections\n", "    # a comment\n", "    open('scratch', 'w').write('x')\n", "    import numpy as np\n"]
        ),
    )


def talkative(lines, rng):
    lines.append("\n\ndef main():\n    print('more text')\n\nif __name__ == '__main__':\n    raise SystemExit(main())\n")


DAMAGES = [dropped_line] * 3 + [other_operator] * 4 + [other_constant] * 3 + [other_name] * 2 + [other_indentation] * 2 + [
    repeated_line, swapped_lines, truncated, truncated, raising, leaving, empty, reading, harmless, harmless, talkative, endless,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems")
    parser.add_argument("out")
    parser.add_argument("--samples", type=int, default=6, help="of each problem")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    opener = gzip.open if args.problems.endswith(".gz") else open
    with opener(args.problems, "rt") as file:
        problems = [json.loads(line) for line in file if line.strip()]
    rng = random.Random(args.seed)
    with open(args.out, "w") as out:
        for problem in problems:
            for number in range(args.samples):
                lines = problem["canonical_solution"].splitlines(keepends=True)
                damage = rng.choice(DAMAGES) if number else None
                if damage:
                    damage(lines, rng)
                name = damage.__name__ if damage else "canonical"
                sample = {"task_id": problem["task_id"], "completion": "".join(lines), "damage": name}
                out.write(json.dumps(sample) + "\n")


main()
