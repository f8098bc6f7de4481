"""The losses of PyTorch from the same weights, on the same sequences in the same order, with the same recipe as a run of trainer.

    python pytorch_curve.py --model HF_DIR --run RUN --data DIR --dtype fp16 --device cuda

HF_DIR are the weights that the run started from (trainer export, fp32), RUN is a finished or unfinished run without dropout, DIR the
folder that `trainer prepare` wrote. Needs torch alone: shards, safetensors and the order of the sequences are read here. Prints one
JSON object.
"""
import argparse, json, time
from pathlib import Path
import torch, torch.nn.functional as F

ap = argparse.ArgumentParser()
for flag in ("model", "run", "data"):
    ap.add_argument("--" + flag, type=Path, required=True)
ap.add_argument("--dtype", choices=["fp16", "bf16", "fp32"], default="fp16")
ap.add_argument("--device", default="cuda")
a = ap.parse_args()


def configuration(text):
    """A run's config.toml: tables of numbers and strings, which JSON writes alike. Python before 3.11 reads no TOML."""
    tables = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("["):
            table = tables[line.strip("[]")] = {}
        else:
            key, _, value = line.partition("=")
            table[key.strip()] = json.loads(value)
    return tables


config = configuration((a.run / "config.toml").read_text())
model, train, adamw = config["model"], config["train"], config["optimizer"]
if model["dropout"] or model["embedding_dropout"]:
    raise SystemExit("the run has dropout: PyTorch's masks are others, so its losses are others")
HEADS, ROTARY, SEQ, BATCH, MICRO = model["heads"], model["rotary_dim"], model["seq_len"], train["batch"], train["micro_batch"]
cuda = a.device == "cuda"
torch.set_float32_matmul_precision("highest")


def safetensors(directory):
    """All tensors of a directory: each file is the length of a JSON header, the header, and the numbers."""
    dtypes, found = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}, {}
    for path in sorted(directory.glob("*.safetensors")):
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        for name, about in json.loads(content[8 : 8 + size]).items():
            if name != "__metadata__":
                begin, end = (8 + size + offset for offset in about["data_offsets"])
                numbers = torch.frombuffer(bytearray(content[begin:end]), dtype=dtypes[about["dtype"]])
                found[name] = numbers.view(about["shape"]).float()
    return found


def tokens(directory):
    """The training split: shards of 256 words of header and 16 bits a token, one after the other."""
    shards = [torch.frombuffer(bytearray(path.read_bytes()[1024:]), dtype=torch.int16) for path in sorted(directory.glob("train-*.bin"))]
    return torch.cat(shards).to(torch.int32) & 0xFFFF


MASK = (1 << 64) - 1


def mix(x):
    """SplitMix64's output function."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def sequence(position, count, seed):
    """src/data/sampler.rs: a Feistel network of eight rounds, walked until it lands among the sequences."""
    epoch, value = divmod(position, count)
    key = mix(mix(seed) ^ epoch)
    half = max(((count - 1).bit_length() + 1) // 2, 4)
    low = (1 << half) - 1
    while count > 1:
        left, right = value >> half, value & low
        for round_ in range(8):
            left, right = right, left ^ mix(right ^ mix((key + round_) & MASK)) & low
        value = left << half | right
        if value < count:
            break
    return value


def learning_rate(step):
    """Linear warm-up, then linear decay to 0 at the last step; steps count from 1."""
    peak, warmup, steps = adamw["lr"], adamw["warmup_steps"], train["steps"]
    return peak * step / warmup if step <= warmup else peak * (steps - step) / (steps - warmup)


w = {name: tensor.to(a.device).requires_grad_() for name, tensor in safetensors(a.model).items()}
frequency = model["rope_theta"] ** -(torch.arange(0, ROTARY, 2, device=a.device).double() / ROTARY)
angle = torch.outer(torch.arange(SEQ, device=a.device).double(), frequency)
cos, sin = angle.cos().float(), angle.sin().float()


def linear(name, x):
    return F.linear(x, w[name + ".weight"], w[name + ".bias"])


def norm(name, x):
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], model["norm_eps"])


def rotate(z):
    first, second, rest = z[..., : ROTARY // 2], z[..., ROTARY // 2 : ROTARY], z[..., ROTARY:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1).to(z.dtype)


def loss_of(ids, targets):
    x = F.embedding(ids, w["model.embed_tokens.weight"])
    b, t, d = x.shape
    for layer in range(model["layers"]):
        name = f"model.layers.{layer}."
        n = norm(name + "input_layernorm", x)
        q, k, v = (linear(f"{name}self_attn.{which}_proj", n).view(b, t, HEADS, d // HEADS).transpose(1, 2) for which in "qkv")
        o = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        o = linear(name + "self_attn.dense", o.transpose(1, 2).reshape(b, t, d))
        x = x + o + linear(name + "mlp.fc2", F.gelu(linear(name + "mlp.fc1", n), approximate="tanh"))
    return F.cross_entropy(linear("lm_head", norm("model.final_layernorm", x)).flatten(0, 1).float(), targets.flatten())


groups = [{"params": [p for p in w.values() if (p.dim() >= 2) == matrix], "weight_decay": adamw["weight_decay"] * matrix}
          for matrix in (True, False)]
optimizer = torch.optim.AdamW(groups, lr=adamw["lr"], betas=(adamw["beta1"], adamw["beta2"]), eps=adamw["eps"])
amp = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": None}[a.dtype]
scaler = torch.amp.GradScaler(a.device, init_scale=train["loss_scale"], enabled=cuda and a.dtype == "fp16")
data = tokens(a.data)
count = (len(data) - 1) // SEQ
losses, begun = [], time.perf_counter()
for step in range(1, train["steps"] + 1):
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step)
    total = 0.0
    for first in range(0, BATCH, MICRO):
        starts = [sequence((step - 1) * BATCH + first + i, count, config["data"]["seed"]) * SEQ for i in range(MICRO)]
        rows = torch.stack([data[start : start + SEQ + 1] for start in starts]).to(a.device).long()
        with torch.autocast(a.device, dtype=amp, enabled=amp is not None):
            loss = loss_of(rows[:, :-1], rows[:, 1:]) * (MICRO / BATCH)
        scaler.scale(loss).backward()
        total += loss.item()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(w.values(), adamw["clip"])
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    losses.append(total)
print(json.dumps({"peer": "pytorch " + torch.__version__, "dtype": a.dtype, "steps": len(losses), "losses": losses,
                  "loop_seconds": time.perf_counter() - begun}))
