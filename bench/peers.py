#!/usr/bin/env python3
"""Runs Quern and llama.cpp on the same model side by side and prints the ratios.

Usage: bench/peers.py MODEL.gguf [--quern-model DIR] [--rounds 3] [--threads 2] [--batch 1,8,32]

llama.cpp (bench/llama_cpp.py) runs the given GGUF file requantised to Q4_0, the format that it is
fastest on, in each of its SETTINGS; every line takes the better one. Quern runs --quern-model, else
the GGUF file as it is. Each round runs one after the other, so that a noisy machine troubles both;
reported are the best of each and the median of the ratios of the rounds.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys

from llama_cpp import ROOT, SETTINGS, build, requantise, run


def measure_llama(programs, model, arguments):
    """{batch: (prefill tokens/s, decode tokens/s of all sequences)}, of the better setting each"""
    runs = [measure_llama_with(setting, programs, model, arguments) for setting in SETTINGS]
    return {batch: tuple(map(max, *(run[batch] for run in runs))) for batch in arguments.batch}


def measure_llama_with(setting, programs, model, arguments):
    results = {}
    for batch in arguments.batch:
        context = batch * (arguments.prefill + arguments.decode) + 256
        done = run(programs / "llama-batched-bench", "-m", model, "-c", context, "-b", 2048, "-ub", 512,
                   "-npp", arguments.prefill, "-ntg", arguments.decode, "-npl", batch,
                   "-t", arguments.threads, "-tb", arguments.threads, *setting,
                   "--output-format", "jsonl", capture_output=True, text=True)
        line = next(l for l in done.stdout.splitlines() if l.startswith("{"))
        row = json.loads(line)
        results[batch] = (row["speed_pp"], row["speed_tg"])
    return results


def measure_quern(binary, model, arguments):
    done = run(binary, "bench", model, "--json", "-q", "--threads", arguments.threads, "--prefill",
               arguments.prefill, "--decode", arguments.decode, "--repeat", 1, "--batch",
               ",".join(map(str, arguments.batch)), capture_output=True, text=True)
    return {row["batch"]: (row["prefill_tokens_per_second"], row["decode_tokens_per_second"])
            for row in json.loads(done.stdout)["results"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--quern-model", type=pathlib.Path)
    parser.add_argument("--quern", default=ROOT / "build/release/quern")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--batch", type=lambda t: [int(b) for b in t.split(",")], default=[1, 8, 32])
    arguments = parser.parse_args()

    for path in (arguments.model, arguments.quern_model):
        if path is not None and not path.exists():
            parser.error(f"{path}: no such file")

    programs = build("llama-batched-bench", "llama-quantize")
    peer_model = requantise(programs, arguments.model)
    quern_model = arguments.quern_model or arguments.model
    ours, theirs = [], []
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        theirs.append(measure_llama(programs, peer_model, arguments))
        ours.append(measure_quern(arguments.quern, quern_model, arguments))

    print(f"{quern_model} against llama.cpp on {peer_model.name}; {arguments.threads} threads, "
          f"prefill {arguments.prefill}, decode {arguments.decode}, best of {arguments.rounds}, "
          "ratio: median of the rounds (smallest to largest)")
    print(f"{'batch':>5} {'':8} {'quern':>10} {'llama.cpp':>10}  ratio")
    for batch in arguments.batch:
        for index, name in enumerate(("prefill", "decode")):
            mine = [r[batch][index] for r in ours]
            peer = [r[batch][index] for r in theirs]
            ratios = [a / b for a, b in zip(mine, peer)]
            print(f"{batch:>5} {name:8} {max(mine):>10.1f} {max(peer):>10.1f}  "
                  f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
