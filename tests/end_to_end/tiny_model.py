"""Makes a tiny random Llama with a byte-level tokenizer, from the standard library alone."""

import json
import pathlib
import random
import struct

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, LAYERS = 64, 4, 2, 16, 128, 2


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in keep:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def tokenizer():
    vocabulary = {symbol: byte for byte, symbol in byte_alphabet().items()}
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": 256 + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i, text in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "vocab": vocabulary, "merges": []},
    }


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def config(**changes):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 260,
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": MLP,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False,
        "mlp_bias": False, "eos_token_id": 258, "bos_token_id": 258, "torch_dtype": "float32",
        **changes}


def shapes(vocabulary=260):
    yield "model.embed_tokens.weight", (vocabulary, HIDDEN)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", (HIDDEN,)
        yield at + "post_attention_layernorm.weight", (HIDDEN,)
        yield at + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN)
        yield at + "self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield at + "self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield at + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)
        yield at + "mlp.gate_proj.weight", (MLP, HIDDEN)
        yield at + "mlp.up_proj.weight", (MLP, HIDDEN)
        yield at + "mlp.down_proj.weight", (HIDDEN, MLP)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (vocabulary, HIDDEN)


def tensors(seed=1, vocabulary=260):
    generator = random.Random(seed)
    for name, shape in shapes(vocabulary):
        count = 1
        for n in shape:
            count *= n
        if "norm" in name:
            values = [generator.uniform(0.8, 1.2) for _ in range(count)]
        else:
            values = [generator.gauss(0, 1 / shape[-1] ** 0.5) for _ in range(count)]
        yield name, shape, struct.pack(f"<{count}f", *values)


def safetensors(entries):
    """The bytes of a file; `entries` are (name, shape, bytes) of F32 tensors."""
    header, data = {}, b""
    for name, shape, content in entries:
        header[name] = {"dtype": "F32", "shape": list(shape),
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def make(directory, seed=1, vocabulary=260, **changes):
    """Writes the model into `directory` and returns its path."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config(**{"vocab_size": vocabulary, **changes})))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (directory / "tokenizer_config.json").write_text(json.dumps(
        {"chat_template": CHAT_TEMPLATE, "eos_token": "<|im_end|>"}))
    (directory / "model.safetensors").write_bytes(safetensors(tensors(seed, vocabulary)))
    return directory
