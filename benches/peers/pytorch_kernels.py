"""torch's matrix products and attention at a block's shapes, and the ceilings that a device reaches. Prints one JSON object.

  python pytorch_kernels.py --hidden 2048 --heads 32 --vocab 51200 --seq 2048 --micro-batch 16 --dtype fp16 --device cuda

A row's name is that of trainer's own operation (`trainer sweep`). Attention: of the SDPA backends that take the shape the
fastest, forward alone and backward alone; its FLOPs are those of the scores that a causal mask leaves.
"""
import argparse, json, statistics, time
import torch, torch.nn.functional as F

ap = argparse.ArgumentParser()
for flag, default in [("hidden", 2048), ("heads", 32), ("vocab", 51200), ("seq", 2048), ("micro-batch", 16), ("repeats", 7)]:
    ap.add_argument("--" + flag, type=int, default=default)
ap.add_argument("--dtype", choices=["fp16", "bf16", "fp32"], default="fp16")
ap.add_argument("--device", default="cuda")
a = ap.parse_args()
cuda = a.device == "cuda"
dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[a.dtype]
torch.manual_seed(0)
c, n = a.hidden, a.micro_batch * a.seq


def sync():
    if cuda:
        torch.cuda.synchronize()


def seconds(call):
    """Median of some measurements, each of as many calls as take 20 ms."""
    def measure(calls):
        sync(); begun = time.perf_counter()
        for _ in range(calls):
            call()
        sync()
        return (time.perf_counter() - begun) / calls
    measure(1)
    calls = max(1, min(1000, int(0.02 / max(measure(1), 1e-9))))
    return statistics.median(measure(calls) for _ in range(a.repeats))


def normal(*shape):
    return torch.randn(*shape, device=a.device, dtype=dtype)


def row(name, how, flops, call):
    try:
        time_ = seconds(call)
    except (RuntimeError, NotImplementedError) as error:
        print_error(name, how, error)
        return None
    return {"name": name, "how": how, "ms": time_ * 1e3, "tflops": flops / time_ / 1e12}


errors = []


def print_error(name, how, error):
    errors.append({"name": name, "how": how, "error": str(error).splitlines()[0][:300]})


def products():
    for k, o in [(c, 7 * c), (c, c), (4 * c, c), (c, a.vocab)]:
        flops = 2 * n * k * o
        x, w, dy = normal(n, k), normal(o, k), normal(n, o)
        yield row(f"linear forward {k}x{o}", "F.linear", flops, lambda: F.linear(x, w))
        yield row(f"input grad {k}x{o}", "matmul", flops, lambda: dy @ w)
        yield row(f"weight grad {k}x{o}", "matmul", flops, lambda: dy.t() @ x)
        del x, w, dy


def attention():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    d = c // a.heads
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
                "efficient": SDPBackend.EFFICIENT_ATTENTION} if cuda else {"math": SDPBackend.MATH}
    q, k, v, g = [normal(a.micro_batch, a.heads, a.seq, d) for _ in range(4)]
    for tensor in (q, k, v):
        tensor.requires_grad_(True)
    seen = n * c * (a.seq + 1)
    for dropout in ("0.1", "0"):
        found = {}
        for how, backend in backends.items():
            def forward():
                with sdpa_kernel([backend]):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=float(dropout))
            found["forward", how] = row(f"attention forward dropout {dropout}", how, 2 * seen, forward)
            if found["forward", how] is None:
                continue
            out = forward()
            backward = lambda: torch.autograd.grad(out, (q, k, v), g, retain_graph=True)
            found["backward", how] = row(f"attention backward dropout {dropout}", how, 5 * seen, backward)
        for part in ("forward", "backward"):
            timed = [value for (which, _), value in found.items() if which == part and value]
            if timed:
                yield {**min(timed, key=lambda value: value["ms"]), "all": {value["how"]: value["ms"] for value in timed}}


def ceilings():
    size = 8192 if cuda else 256
    x, y = normal(size, size), normal(size, size)
    matmul = 2 * size**3 / seconds(lambda: x @ y)
    source = torch.randn((1 << 30 if cuda else 1 << 24) // 4, device=a.device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() * 4 / seconds(lambda: target.copy_(source))
    return {"matmul_tflops": matmul / 1e12, "memory_gb_per_s": copy / 1e9}


measured = ceilings()
rows = [found for found in [*products(), *attention()] if found]
print(json.dumps({"peer": "pytorch " + torch.__version__, "dtype": a.dtype, "tokens": n, "ceilings": measured, "kernels": rows, "errors": errors}))
