#!/usr/bin/env python3
"""Writes a GGUF file of random Q4_0 weights in the shapes of a config.json, for llama.cpp to be timed on
beside `quern synth`. Needs gguf and numpy. Usage: bench/synthetic_gguf.py DIR_OR_CONFIG OUTPUT.gguf

Llama and Qwen 3; the head is Q6_K as llama-quantize makes it. There is no vocabulary.
"""

import json
import pathlib
import sys

import gguf
import numpy as np

BLOCKS = {gguf.GGMLQuantizationType.Q4_0: (32, 18), gguf.GGMLQuantizationType.Q6_K: (256, 210)}
SPREAD = 0.02


def random_blocks(generator, rows, columns, kind):
    """Random codes; every scale such that the numbers spread about SPREAD."""
    elements, size = BLOCKS[kind]
    data = generator.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    scale = np.float16(SPREAD / (5 if kind == gguf.GGMLQuantizationType.Q4_0 else 1400))
    place = slice(0, 2) if kind == gguf.GGMLQuantizationType.Q4_0 else slice(size - 2, size)
    data[:, place] = np.frombuffer(scale.tobytes(), dtype=np.uint8)
    return data.reshape(rows, columns // elements * size)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1])
    config = json.loads((source / "config.json" if source.is_dir() else source).read_text())
    architecture = {"LlamaForCausalLM": "llama", "Qwen3ForCausalLM": "qwen3"}[config["architectures"][0]]
    hidden, inner, layers = (config[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    heads, kv_heads, vocabulary = (
        config[k] for k in ("num_attention_heads", "num_key_value_heads", "vocab_size"))
    head_dim = config.get("head_dim") or hidden // heads

    writer = gguf.GGUFWriter(sys.argv[2], architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("none")

    generator = np.random.default_rng(0)
    q4, q6 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q6_K

    def matrix(name, rows, columns, kind=q4):
        writer.add_tensor(name + ".weight", random_blocks(generator, rows, columns, kind), raw_dtype=kind)

    def norm(name, width):
        writer.add_tensor(name + ".weight", np.ones(width, dtype=np.float32))

    matrix("token_embd", vocabulary, hidden)
    for layer in range(layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm", hidden)
        matrix(block + "attn_q", heads * head_dim, hidden)
        matrix(block + "attn_k", kv_heads * head_dim, hidden)
        matrix(block + "attn_v", kv_heads * head_dim, hidden)
        matrix(block + "attn_output", hidden, heads * head_dim)
        if architecture == "qwen3":
            norm(block + "attn_q_norm", head_dim)
            norm(block + "attn_k_norm", head_dim)
        norm(block + "ffn_norm", hidden)
        matrix(block + "ffn_gate", inner, hidden)
        matrix(block + "ffn_up", inner, hidden)
        matrix(block + "ffn_down", hidden, inner)
    norm("output_norm", hidden)
    if not config.get("tie_word_embeddings"):
        matrix("output", vocabulary, hidden, q6)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
