"""Exchange with Hugging Face transformers: models and tokenizers both ways, held against PhiForCausalLM and AutoTokenizer.

Usage: python exchange_hf.py [--trainer target/release/trainer] [--seed 1] [--files 200] [--microsoft DIR]

What is compared (largest difference of any logit, both sides fp32 on the CPU, on random tokens):
  read      random PhiForCausalLMs, saved by save_pretrained (fp32, fp16, bf16, whole and in shards), and what `trainer logits`
            makes of them
  export    what PhiForCausalLM.from_pretrained makes of `trainer export` of each of them
  fused     the same models in the three older layouts of q, k and v, read by `trainer logits`
  run       a run of `trainer train`: export, AutoModelForCausalLM, and the README's own Python, which is executed
  tokenizer ids by AutoTokenizer of an exported directory and by `trainer prepare`: the golden texts and Python files, with CodeGen's
            tokenizer, bytes, and a BPE trained here
  loss      `trainer evaluate --stride` and the sliding window of transformers' guide to perplexity
  microsoft with --microsoft: a folder that holds Microsoft's own modeling_mixformer_sequential.py and configuration (they are
            executed; they need einops), random models of their classes, and what `trainer logits` makes of them
Prints one JSON object; the exit code is 1 where something is further apart than 2e-4 (logits) or differs (ids).
Needs: pip install torch transformers safetensors numpy pyyaml. Works with transformers 4 and 5; of 4.36, whose own models have the
fused query_key_value, only what we read is compared.
"""
import argparse, importlib, json, math, os, pathlib, random, re, struct, subprocess, sys, sysconfig, tempfile

import numpy as np, torch, transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PhiConfig, PhiForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--trainer", default="target/release/trainer")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--files", type=int, default=200, help="Python files to tokenise")
parser.add_argument("--microsoft", help="folder with modeling_mixformer_sequential.py")
args = parser.parse_args()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.manual_seed(args.seed)
random.seed(args.seed)
program = os.path.abspath(args.trainer)
here = pathlib.Path(__file__).resolve().parent.parent.parent
TOLERANCE, BATCH, SEQ = 2e-4, 3, 33
FUSED = tuple(map(int, transformers.__version__.split(".")[:2])) < (4, 37)

# hidden, heads, layers, MLP, vocabulary, share of each head that turns, theta, eps, saved as, largest file
MODELS = [
    (96, 3, 2, 200, 301, 0.5, 10000.0, 1e-5, torch.float32, "5GB"),
    (200, 5, 3, 333, 1000, 0.4, 5000.0, 1e-6, torch.float32, "100KB"),
    (84, 7, 2, 64, 257, 1.0, 10000.0, 1e-5, torch.float16, "50KB"),
    (64, 1, 1, 256, 512, 0.25, 100.0, 1e-5, torch.bfloat16, "5GB"),
    (240, 3, 2, 960, 777, 0.4, 10000.0, 1e-5, torch.float16, "5GB"),
    (128, 2, 4, 512, 51200, 0.5, 10000.0, 1e-5, torch.bfloat16, "1MB"),
]


def trainer(*arguments):
    done = subprocess.run([program, "--backend", "cpu", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"trainer {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def write_shard(path, ids):
    ids = np.asarray(ids, dtype=np.uint16).reshape(-1)
    with open(path, "wb") as file:
        file.write(struct.pack("<3i", 20240520, 1, ids.size).ljust(1024, b"\0") + ids.tobytes())


def read_shards(folder):
    manifest = json.load(open(os.path.join(folder, "manifest.json")))
    return np.concatenate([np.fromfile(os.path.join(folder, s["file"]), dtype=np.uint16, offset=1024) for s in manifest["train"]["shards"]])


def ours(model, ids, scratch):
    shard, out = os.path.join(scratch, "tokens.bin"), os.path.join(scratch, "logits.safetensors")
    write_shard(shard, ids)
    trainer("logits", "--model", model, "--tokens", shard, "--seq-len", ids.shape[1], "--out", out)
    return load_file(out)["logits"]


@torch.no_grad()
def theirs(model, ids):
    return model.float().eval()(input_ids=ids).logits.float()


def apart(a, b):
    return (a - b).abs().max().item()


def shaken(model):
    """Weights, biases and norms away from their initial values, so that one in the wrong place shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.3))
    return model


def load(path):
    model, info = PhiForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model


def older_layouts(model, folder):
    """The three older forms of a model's weights: Microsoft's Wqkv is [3, heads, head_dim], transformers 4.36's [heads, 3, head_dim]."""
    config, state = model.config, model.float().state_dict()
    layers, heads, hidden = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    rotary = int(hidden // heads * share_of(config))
    microsofts = dict(n_embd=hidden, n_head=heads, n_layer=layers, n_inner=config.intermediate_size, n_positions=2048, rotary_dim=rotary,
                      vocab_size=config.vocab_size, pad_vocab_size_multiple=1, layer_norm_epsilon=config.layer_norm_eps,
                      activation_function="gelu_new", tie_word_embeddings=False, torch_dtype="float32")
    # Microsoft's configurations have no theta: theirs is always 10000.
    standard = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
    for form in ("mixformer-sequential", "phi-msft", "query_key_value")[0 if standard == 10000.0 else 2 :]:
        tensors = {}
        for name, tensor in state.items():
            if any(part in name for part in ("k_proj", "v_proj")):
                continue
            if "q_proj" in name:
                parts = torch.stack([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
                if form == "query_key_value":
                    parts = parts.view(3, heads, hidden // heads, -1).transpose(0, 1)
                tensor = parts.reshape(3 * hidden, *tensor.shape[1:])
                name = name.replace("q_proj", "query_key_value" if form == "query_key_value" else "Wqkv")
            if form != "query_key_value":
                name = name.replace("input_layernorm", "ln").replace("self_attn.dense", "mixer.out_proj").replace("self_attn", "mixer")
                if form == "phi-msft":
                    name = name.replace("lm_head", "lm_head.linear").replace("model.final_layernorm", "lm_head.ln")
                    name = name.replace("model.embed_tokens", "transformer.embd.wte").replace("model.layers", "transformer.h")
                else:
                    name = re.sub(r"model\.layers\.(\d+)", lambda match: f"layers.{int(match[1]) + 1}", name)
                    name = name.replace("model.embed_tokens", "layers.0.wte").replace("lm_head", f"layers.{layers + 1}.linear")
                    name = name.replace("model.final_layernorm", f"layers.{layers + 1}.ln")
            tensors[name] = tensor.contiguous().clone()
        out = os.path.join(folder, form)
        os.makedirs(out)
        save_file(tensors, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
        if form == "query_key_value":
            config.save_pretrained(out)
        else:
            json.dump({**microsofts, "model_type": form}, open(os.path.join(out, "config.json"), "w"))
        yield form, out


def share_of(config):
    return getattr(config, "rope_parameters", None) and config.rope_parameters["partial_rotary_factor"] or config.partial_rotary_factor


def models(scratch):
    report = []
    for number, (hidden, heads, layers, mlp, vocab, share, theta, eps, dtype, size) in enumerate(MODELS):
        config = PhiConfig(vocab_size=vocab, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
                           partial_rotary_factor=share, rope_theta=theta, layer_norm_eps=eps, bos_token_id=None, eos_token_id=None)
        if getattr(config, "rope_parameters", None):
            assert (config.rope_parameters["rope_theta"], config.rope_parameters["partial_rotary_factor"]) == (theta, share), config
        folder = os.path.join(scratch, f"model-{number}")
        shaken(PhiForCausalLM(config)).to(dtype).save_pretrained(folder, max_shard_size=size)
        model, ids = load(folder), torch.randint(0, vocab, (BATCH, SEQ))
        expected = theirs(model, ids)
        row = {"sizes": f"{layers} x {hidden}, {heads} heads of {hidden // heads}, rotary {share}", "saved": f"{str(dtype)[6:]}, {size}",
               "files": len([name for name in os.listdir(folder) if name.endswith(".safetensors")]),
               "largest_logit": round(expected.abs().max().item(), 2), "read": apart(ours(folder, ids, scratch), expected)}
        report.append(row)
        if FUSED:
            continue
        exported = os.path.join(scratch, f"exported-{number}")
        told = json.loads(trainer("export", folder, "--out", exported, "--shard-size", size, "--json"))
        row["exported_files"] = len([name for name in told["files"] if name.endswith(".safetensors")])
        row["export"] = apart(theirs(load(exported), ids), expected)
        for precision in ("fp16", "bf16", "fp32"):
            narrow = os.path.join(scratch, f"{precision}-{number}")
            trainer("export", folder, "--out", narrow, "--dtype", precision, "--shard-size", "64KiB")
            row[f"export_{precision}"] = apart(theirs(load(narrow), ids), ours(narrow, ids, scratch))
        for form, out in older_layouts(model, os.path.join(scratch, f"older-{number}")):
            row[f"fused_{form}"] = apart(ours(out, ids, scratch), expected)
    return report


def python_files(count):
    stdlib = pathlib.Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in stdlib.rglob("*.py") if "site-packages" not in path.parts)
    random.shuffle(files)
    texts = []
    for path in files:
        try:
            texts.append(path.read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            continue
        if len(texts) == count:
            break
    return [text for text in texts if text]


def a_run(scratch):
    """Trains on Python files, exports, and holds the exported directory against the run's own checkpoint."""
    corpus, data, run, out = (os.path.join(scratch, name) for name in ("corpus", "data", "run", "exported-run"))
    os.makedirs(corpus)
    for number, text in enumerate(python_files(20)):
        pathlib.Path(corpus, f"{number:05}.py").write_bytes(text.encode())
    trainer("prepare", corpus, "--out", data, "--val-fraction", "0.2")
    sets = "model.layers=2 model.hidden=64 model.heads=2 model.seq_len=64 train.steps=5 train.batch=8 validation.every=5 train.precision=bf16"
    trainer("train", "--preset", "laptop", "--data", data, "--out", run, *(part for assignment in sets.split() for part in ("--set", assignment)))
    told = json.loads(trainer("export", run, "--out", out, "--shard-size", "10MB", "--json"))
    model = AutoModelForCausalLM.from_pretrained(out)
    assert type(model) is PhiForCausalLM, type(model)
    ids = torch.randint(0, 50295, (BATCH, SEQ))
    report = {"dtype": told["dtype"], "files": told["files"], "logits": apart(theirs(model, ids), ours(run, ids, scratch))}
    card = pathlib.Path(out, "README.md").read_text()
    import yaml
    report["card"] = yaml.safe_load(card.split("---")[1])
    assert report["card"]["library_name"] == "transformers"
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    subprocess.run([sys.executable, "-c", code], cwd=out, check=True, stdout=subprocess.DEVNULL)
    report["card_code_runs"] = True
    return report, out


def same_ids(model, data, texts):
    """Ids of AutoTokenizer of an exported directory beside those that `trainer prepare` wrote for the same texts, in order."""
    found, tokenizer = read_shards(data), AutoTokenizer.from_pretrained(model)
    expected = [id for text in texts for id in tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]]
    decoded = sum(tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text for text in texts)
    return {"class": type(tokenizer).__name__, "texts": len(texts), "ids": len(expected), "same_ids": expected == found.tolist(),
            "texts_decoded_back": decoded, "model_max_length": tokenizer.model_max_length}


def tokenizers(codegen, scratch):
    """The exported run's tokenizer; bytes, and a BPE that Hugging Face tokenizers trains here, each through a run of one step."""
    texts = [entry["text"] for entry in json.load(open(here / "tests/data/codegen-tokenizer.json"))]
    texts = [text for text in texts + python_files(args.files) if text]
    corpus, trained = os.path.join(scratch, "texts"), os.path.join(scratch, "trained")
    os.makedirs(corpus)
    os.makedirs(trained)
    for number, text in enumerate(texts):
        pathlib.Path(corpus, f"{number:05}.txt").write_bytes(text.encode())
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=900, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False))
    bpe.save(os.path.join(trained, "tokenizer.json"))
    report = []
    for name in ("codegen", "bytes", os.path.join(trained, "tokenizer.json")):
        kind = os.path.basename(name)
        data, run, out = (os.path.join(scratch, f"{kind}-{what}") for what in ("data", "run", "exported"))
        trainer("prepare", corpus, "--out", data, "--val-fraction", "0", "--tokenizer", name)
        if name == "codegen":
            out = codegen
        else:
            sets = "layers=1 hidden=32 heads=1 vocab=1024 seq_len=64"
            small = [part for assignment in sets.split() for part in ("--set", f"model.{assignment}")]
            trainer("train", "--preset", "laptop", "--data", data, "--out", run, *small, "--set", "train.steps=1", "--set", "validation.every=0")
            trainer("export", run, "--out", out)
        report.append({"tokenizer": kind, **same_ids(out, data, texts)})
    return report


@torch.no_grad()
def losses(path, scratch):
    """transformers' guide, docs/source/en/perplexity.md, beside `evaluate --stride`."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).float().eval(), AutoTokenizer.from_pretrained(path)
    text = python_files(1)[0][:2000]
    file = os.path.join(scratch, "one.txt")
    pathlib.Path(file).write_bytes(text.encode())
    ids = torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
    longest, report = model.config.max_position_embeddings, []
    for stride in (longest, longest // 2, 7):
        # Windows of `longest` inputs: one token more with its target.
        total, counted, before, size = 0.0, 0, 0, ids.shape[1]
        for begin in range(0, size, stride):
            end = min(begin + longest, size - 1)
            logits = model(input_ids=ids[:, begin:end]).logits[0].double()
            scored = end - before
            nll = torch.nn.functional.cross_entropy(logits[-scored:], ids[0, before + 1 : end + 1], reduction="sum")
            total, counted, before = total + nll.item(), counted + scored, end
            if end == size - 1:
                break
        found = json.loads(trainer("evaluate", "--model", path, "--text", file, "--stride", stride, "--json"))
        bits = total / math.log(2) / (len(text.encode()) - len(tokenizer.decode(ids[0, :1]).encode()))
        report.append({"stride": stride, "tokens": found["tokens"], "loss": found["loss"], "loss_apart": abs(found["loss"] - total / counted),
                       "bits_per_byte_apart": abs(found["bits_per_byte"] - bits)})
        assert found["tokens"] == counted
    return report


def microsoft(folder, scratch):
    package = os.path.join(scratch, "microsofts")
    os.makedirs(package)
    for name in os.listdir(folder):
        if name.endswith(".py"):
            pathlib.Path(package, name).write_bytes(pathlib.Path(folder, name).read_bytes())
    pathlib.Path(package, "__init__.py").touch()
    sys.path.insert(0, scratch)
    modeling = importlib.import_module("microsofts.modeling_mixformer_sequential")
    Config = importlib.import_module("microsofts.configuration_mixformer_sequential").MixFormerSequentialConfig
    report = []
    for hidden, heads, layers, inner, vocab, rotary in ((96, 3, 2, None, 320, 16), (200, 5, 3, 333, 1000, 32), (64, 1, 1, 100, 512, 64)):
        config = Config(vocab_size=vocab, n_embd=hidden, n_head=heads, n_layer=layers, n_inner=inner, n_positions=256, rotary_dim=rotary)
        model = shaken(modeling.MixFormerSequentialForCausalLM(config)).float().eval()
        out = os.path.join(scratch, f"microsoft-{hidden}")
        os.makedirs(out)
        config.save_pretrained(out)
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, os.path.join(out, "model.safetensors"))
        ids = torch.randint(0, vocab, (BATCH, SEQ))
        with torch.no_grad():
            expected = model(ids).logits
        report.append({"sizes": f"{layers} x {hidden}, {heads} heads, rotary {rotary}", "logits": apart(ours(out, ids, scratch), expected)})
    return report


def numbers(value, key=""):
    if isinstance(value, dict):
        return [pair for name, inner in value.items() for pair in numbers(inner, name)]
    if isinstance(value, list):
        return [pair for inner in value for pair in numbers(inner, key)]
    compared = key in ("read", "logits", "loss_apart", "bits_per_byte_apart") or key.startswith(("export", "fused")) and key != "exported_files"
    return [(key, value)] if compared else []


with tempfile.TemporaryDirectory() as scratch:
    report = {"torch": torch.__version__, "transformers": transformers.__version__, "models": models(scratch)}
    if not FUSED:
        report["run"], exported = a_run(scratch)
        report["tokenizer"] = tokenizers(exported, scratch)
        report["loss"] = losses(exported, scratch)
    if args.microsoft:
        report["microsoft"] = microsoft(args.microsoft, scratch)
worst = max(numbers(report), key=lambda pair: pair[1])
report["furthest_apart"] = {worst[0]: worst[1]}
print(json.dumps(report, indent=1))
sys.exit(0 if worst[1] <= TOLERANCE and all(row["same_ids"] for row in report.get("tokenizer", [])) else 1)
