#!/usr/bin/env python3
"""Compares the logits of a quern binary with those of Hugging Face transformers on one prompt.

MODEL is a directory or a GGUF file that both can read. Needs torch, transformers and, for GGUF,
gguf and accelerate. Prints the maximum relative error, max |a - b| / max |b| over all positions, and
how often both prefer the same token; exits with 1 when the error is above --tolerance.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig


def reference_logits(model_path, tokens):
    folder, options = model_path, {}
    if model_path.is_file():
        folder, options = model_path.parent, {"gguf_file": model_path.name}
    else:
        config = json.loads((model_path / "config.json").read_text())
        if config.get("quantization_config", {}).get("quant_method") == "compressed-tensors":
            # Asymmetric grouped checkpoints load only so: docs/quantisation.md.
            options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options).eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float()


def quern_logits(binary, model_path, tokens, precision):
    command = [binary, "logits", str(model_path), "--token-ids", ",".join(map(str, tokens)),
               "--precision", precision, "--all", "--json"]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return torch.tensor(json.loads(answer)["logits"], dtype=torch.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", help="the quern program")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=64, help="length of the prompt")
    parser.add_argument("--vocabulary", type=int, default=32000, help="ids are drawn below this")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16", "fast"])
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(args.seed)
    tokens = torch.randint(3, args.vocabulary, (args.tokens,), generator=generator).tolist()
    ours = quern_logits(args.binary, args.model, tokens, args.precision)
    theirs = reference_logits(args.model, tokens)
    if ours.shape != theirs.shape:
        sys.exit(f"shapes differ: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    agreement = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    print(f"{args.model}: maximum relative error {error:.3g}, same first choice at "
          f"{100 * agreement:.1f}% of {len(tokens)} positions")
    sys.exit(error > args.tolerance)


if __name__ == "__main__":
    main()
