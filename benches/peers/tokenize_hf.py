"""Tokenising rate: `trainer prepare` against Hugging Face tokenizers' encode_batch, alternating, on the same cores.

Usage: python tokenize_hf.py [--trainer target/release/trainer] [--rounds 3] [--batch 1000] [INPUT...]

INPUT: folders and .py files; by default this Python's standard library without site-packages. Both tokenise the same
files (.py, .txt, .md) with the same CodeGen tokenizer (the tokenizer.json that prepare saved), added tokens included. Hugging Face is given
texts that are in memory already and only encodes them; the time of trainer is that of the whole process: start, finding and
reading the files, tokenising, writing and syncing the shards. Ids are compared too. Prints one JSON object; MB is 10^6 bytes.
Needs: pip install tokenizers
"""
import argparse, array, json, os, pathlib, statistics, subprocess, sysconfig, tempfile, time

from tokenizers import Tokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--trainer", default="target/release/trainer")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--batch", type=int, default=1000, help="documents a call of encode_batch")
parser.add_argument("inputs", nargs="*")
args = parser.parse_args()

inputs = args.inputs
if not inputs:
    stdlib = pathlib.Path(sysconfig.get_paths()["stdlib"])
    left_out = {"site-packages", "__pycache__"}
    inputs = sorted(str(p) for p in stdlib.iterdir() if p.name not in left_out and (p.is_dir() or p.suffix == ".py"))

# The files that `trainer prepare` reads, in its order: a folder's entries by name, a sub-folder where its name stands.
def walk(path):
    if path.is_dir():
        return [file for entry in sorted(path.iterdir(), key=lambda entry: entry.name) for file in walk(entry)]
    return [path] if path.suffix in (".py", ".txt", ".md") else []


files = [file for given in inputs for file in walk(pathlib.Path(given))]
texts = []
for path in files:
    try:
        texts.append(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        pass  # prepare names these and leaves them out
megabytes = sum(len(text.encode()) for text in texts) / 1e6

ours, theirs, same, ids_of_hugging_face = [], [], False, 0
with tempfile.TemporaryDirectory() as scratch:
    out = os.path.join(scratch, "data")
    command = [args.trainer, "prepare", *inputs, "--out", out, "--val-fraction", "0"]
    for round_number in range(args.rounds):
        start = time.perf_counter()
        subprocess.run(command + ["--force"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ours.append(time.perf_counter() - start)
        manifest = json.load(open(os.path.join(out, "manifest.json")))
        tokenizer = Tokenizer.from_file(os.path.join(out, "tokenizer.json"))
        seconds, ids = 0.0, []
        for first in range(0, len(texts), args.batch):
            batch = texts[first : first + args.batch]
            start = time.perf_counter()
            encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
            seconds += time.perf_counter() - start
            if round_number == 0:
                ids += [array.array("H", encoding.ids) for encoding in encodings]
        theirs.append(seconds)
        if round_number == 0:
            assert manifest["train"]["bytes"] == sum(len(text.encode()) for text in texts), "not the same files"
            end = array.array("H", [manifest["tokenizer"]["end_of_text"]])
            tokens = b"".join(
                open(os.path.join(out, shard["file"]), "rb").read()[1024:] for shard in manifest["train"]["shards"]
            )
            same = tokens == b"".join((document + end).tobytes() for document in ids if document)
            ids_of_hugging_face = sum(len(document) for document in ids)

rate = lambda seconds: megabytes / statistics.median(seconds)
print(json.dumps({
    "megabytes": round(megabytes, 2), "documents": len(texts), "cores": os.cpu_count(), "rounds": args.rounds,
    "trainer_mb_per_s": round(rate(ours), 2), "hugging_face_mb_per_s": round(rate(theirs), 2),
    "ratio": round(rate(ours) / rate(theirs), 2),
    "trainer_seconds": [round(s, 3) for s in ours], "hugging_face_seconds": [round(s, 3) for s in theirs],
    "same_ids": same, "tokens": ids_of_hugging_face,
}))
