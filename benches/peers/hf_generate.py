"""transformers' generate at batch 1, greedy, with its cache. Prints one JSON object.

  python hf_generate.py --model DIR --prompt 'def add(a, b):' --tokens 128 --dtype fp16 --device cuda
"""
import argparse, json, time
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True)
ap.add_argument("--prompt", required=True)
ap.add_argument("--tokens", type=int, default=128)
ap.add_argument("--dtype", choices=["fp16", "bf16", "fp32"], default="fp16")
ap.add_argument("--device", default="cuda")
a = ap.parse_args()
dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[a.dtype]
tokenizer = AutoTokenizer.from_pretrained(a.model)
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype).to(a.device).eval()
inputs = tokenizer(a.prompt, return_tensors="pt").to(a.device)


def timed(tokens):
    if a.device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    out = model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, use_cache=True)
    if a.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun, out.shape[1] - inputs["input_ids"].shape[1]


with torch.inference_mode():
    timed(4)
    # One token is the prompt's; what more tokens take is the decoding.
    first, _ = timed(1)
    whole, made = timed(a.tokens)
print(json.dumps({"peer": "transformers " + transformers.__version__, "torch": torch.__version__, "dtype": a.dtype, "tokens": made,
                  "tokens_per_s": (made - 1) / max(whole - first, 1e-9), "prompt_tokens": inputs["input_ids"].shape[1], "first_s": first, "whole_s": whole}))
