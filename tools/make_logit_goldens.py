#!/usr/bin/env python3
"""Writes tests/golden/model: tiny random checkpoints and the logits that transformers gives them.

Needs torch, transformers, safetensors and gguf. Every folder holds what a user's would (config.json,
model.safetensors or shards, some a model.gguf of the same numbers) and expected.safetensors: "tokens"
and "logits", float32, of every position, and "hidden_mean" and "hidden_last" of the hidden states
behind the final norm. Random numbers come from a seed: running it again changes
nothing. Quantised checkpoints are packed here, by the formats' definitions, not by a quantiser; their
logits are those of the widened weights.
"""
import argparse
import json
import math
import pathlib
import shutil

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

TOKENS = 40
VOCABULARY = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # channel 8c + AWQ_ORDER[i] lies in nibble i of word c
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def sizes(**changes):
    common = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                  rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
                  pad_token_id=None)
    return {**common, **changes}


def default_rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


# name -> (config, storage type)
FAMILIES = {
    "llama": (LlamaConfig(**sizes(num_key_value_heads=4)), torch.bfloat16),
    "llama31": (LlamaConfig(**sizes(rope_parameters=LLAMA3)), torch.bfloat16),
    "smollm2": (LlamaConfig(**sizes(hidden_size=96, num_attention_heads=6, tie_word_embeddings=True,
                                    rope_parameters=default_rope(100000.0))), torch.bfloat16),
    "llama_bias": (LlamaConfig(**sizes(attention_bias=True, mlp_bias=True, head_dim=32)),
                   torch.float16),
    "mistral": (MistralConfig(**sizes(sliding_window=16)), torch.bfloat16),
    "qwen2": (Qwen2Config(**sizes(use_sliding_window=True, sliding_window=16, max_window_layers=1,
                                  rope_parameters=default_rope(1000000.0))), torch.float32),
    "qwen3": (Qwen3Config(**sizes(head_dim=32, tie_word_embeddings=True, num_hidden_layers=3,
                                  rope_parameters=default_rope(1000000.0))), torch.bfloat16),
}


def randomise(model, generator):
    """Weights large enough for attention to be sharp and every norm and bias to matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                gain = 1.0 if "embed" in name else 1.3
                width = 1 if "embed" in name else parameter.shape[1]
                parameter.copy_(gain * noise / math.sqrt(width))
            elif "norm" in name:
                parameter.copy_(1.0 + 0.3 * noise)
            else:
                parameter.copy_(0.3 * noise)


def write_expected(folder, model, tokens):
    with torch.no_grad():
        logits = model(tokens[None]).logits[0]
        hidden = model.model(tokens[None]).last_hidden_state[0].float()
    save_file({"tokens": tokens.to(torch.int32), "logits": logits.float().contiguous(),
               "hidden_mean": hidden.mean(0), "hidden_last": hidden[-1].contiguous()},
              folder / "expected.safetensors")


def load_float32(folder, **options):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options).eval()


def state(model, dtype):
    tied = model.config.tie_word_embeddings
    return {name: value.to(dtype).contiguous() for name, value in model.state_dict().items()
            if not (tied and name == "lm_head.weight")}


def make_old_style(folder):
    """Rewrites config.json with the keys that transformers used before version 5."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def make_families(root, tokens):
    for seed, (name, (config, dtype)) in enumerate(FAMILIES.items()):
        folder = root / name
        folder.mkdir(parents=True)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        randomise(model, torch.Generator().manual_seed(seed))
        model.config.dtype = dtype
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        save_file(state(model, dtype), folder / "model.safetensors", metadata={"format": "pt"})
        if name in ("llama", "smollm2"):
            make_old_style(folder)
        write_expected(folder, load_float32(folder), tokens)


def make_sharded(root):
    source, folder = root / "qwen3", root / "qwen3_sharded"
    folder.mkdir()
    for name in ("config.json", "expected.safetensors"):
        shutil.copy(source / name, folder / name)
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2],
              "model-00002-of-00002.safetensors": names[1::2]}
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())},
             "weight_map": {n: file for file, members in shards.items() for n in members}}
    for file, members in shards.items():
        save_file({n: tensors[n] for n in members}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def words(nibbles):
    """[rows, 8 * n] codes of 4 bits -> [rows, n] int32, the first code in the lowest bits."""
    parts = nibbles.reshape(nibbles.shape[0], -1, 8).astype(np.uint32)
    return torch.from_numpy(sum(parts[:, :, i] << np.uint32(4 * i) for i in range(8)).view(np.int32))


def words8(codes):
    parts = codes.reshape(codes.shape[0], -1, 4).astype(np.uint32)
    return torch.from_numpy(sum(parts[:, :, i] << np.uint32(8 * i) for i in range(4)).view(np.int32))


def round_groups(weight, group, bits, symmetric, scale_dtype):
    """Codes [N, K], scales [N, K/g] of scale_dtype, zeros [N, K/g], widened weight."""
    rows, columns = weight.shape
    w = weight.float().reshape(rows, columns // group, group)
    top = 2**bits - 1
    if symmetric:
        scale = w.abs().amax(-1) / (top / 2)
        zero = torch.full_like(scale, 2**(bits - 1))
    else:
        low, high = w.amin(-1).clamp(max=0), w.amax(-1).clamp(min=0)
        scale = (high - low) / top
        zero = (-low / scale).round().clamp(0, top)
    scale = scale.to(scale_dtype)
    codes = ((w / scale.float()[..., None]).round() + zero[..., None]).clamp(0, top)
    wide = (codes - zero[..., None]) * scale.float()[..., None]
    flat = (rows, columns)
    return codes.reshape(flat).numpy(), scale, zero.numpy(), wide.reshape(flat)


def linear_modules(tensors):
    return [n.removesuffix(".weight") for n, t in tensors.items()
            if n.endswith("_proj.weight") and t.dim() == 2]


def pack_awq(module, weight, out):
    codes, scale, zero, wide = round_groups(weight, 32, 4, False, torch.float16)

    def interleaved(matrix):  # [rows, N] -> words along N
        n = matrix.shape[1]
        return words(matrix.reshape(-1, n // 8, 8)[:, :, AWQ_ORDER].reshape(-1, n))

    out[module + ".qweight"] = interleaved(codes.T)
    out[module + ".qzeros"] = interleaved(zero.T)
    out[module + ".scales"] = scale.T.contiguous()
    return wide


def pack_compressed(module, weight, out):
    """int4 asymmetric g32; o_proj int4 symmetric, one scale a row; down_proj int8 g32 packed."""
    if "o_proj" in module:
        codes, scale, _, wide = round_groups(weight, weight.shape[1], 4, True, torch.bfloat16)
        packed = words(codes)
    elif "down_proj" in module:
        codes, scale, zero, wide = round_groups(weight, 32, 8, False, torch.bfloat16)
        packed = words8(codes)
        out[module + ".weight_zero_point"] = words8(zero.T).T.contiguous()
    elif "up_proj" in module:
        codes, scale, _, wide = round_groups(weight, weight.shape[1], 8, True, torch.bfloat16)
        out[module + ".weight"] = torch.from_numpy((codes - 128).astype(np.int8))
        out[module + ".weight_scale"] = scale
        return wide
    else:
        codes, scale, zero, wide = round_groups(weight, 32, 4, False, torch.bfloat16)
        packed = words(codes)
        out[module + ".weight_zero_point"] = words(zero.T).T.contiguous()
    out[module + ".weight_packed"] = packed
    out[module + ".weight_scale"] = scale
    out[module + ".weight_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
    return wide


AWQ_CONFIG = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True,
              "version": "gemm", "modules_to_not_convert": ["lm_head"]}


def compressed_group(targets, bits, symmetric, group_size, layout):
    strategy = {"strategy": "channel"} if group_size is None else {
        "strategy": "group", "group_size": group_size}
    return {"targets": targets, "format": layout, "input_activations": None,
            "output_activations": None,
            "weights": {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False,
                        **strategy}}


COMPRESSED_CONFIG = {
    "quant_method": "compressed-tensors", "format": "mixed-precision",
    "quantization_status": "compressed", "ignore": ["lm_head"], "kv_cache_scheme": None,
    "config_groups": {
        "group_0": compressed_group(["re:.*self_attn\\.o_proj$"], 4, True, None, "pack-quantized"),
        "group_1": compressed_group(["re:.*down_proj$"], 8, False, 32, "pack-quantized"),
        "group_2": compressed_group(["re:.*\\.up_proj$"], 8, True, None, "int-quantized"),
        "group_3": compressed_group(["Linear"], 4, False, 32, "pack-quantized"),
    }}


def round_fp8(weight, block, scale_dtype):
    """F8_E4M3 [N, K] and the scales of blocks [rows, columns], the last ones cut off; widened."""
    n, k = weight.shape
    rows, columns = block[0] or n, block[1] or k
    scales = torch.zeros(-(-n // rows), -(-k // columns))
    codes, wide = torch.zeros(n, k, dtype=torch.float8_e4m3fn), torch.zeros(n, k)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = np.s_[i * rows:(i + 1) * rows, j * columns:(j + 1) * columns]
            scales[i, j] = (weight[at].float().abs().max() / 448).to(scale_dtype).float()
            codes[at] = (weight[at].float() / scales[i, j]).clamp(-448, 448).to(codes.dtype)
            wide[at] = codes[at].float() * scales[i, j]
    return codes, scales.to(scale_dtype), wide


def pack_fp8(module, weight, out):
    out[module + ".weight"], out[module + ".weight_scale_inv"], wide = round_fp8(
        weight, (48, 64), torch.float32)
    return wide


def pack_fp8_compressed(module, weight, out):
    """o_proj one scale, down_proj one for a block of 32 x 32, the others one a row."""
    if "o_proj" in module:
        codes, scale, wide = round_fp8(weight, (0, 0), torch.float32)
        scale = scale.reshape(1)
    elif "down_proj" in module:
        codes, scale, wide = round_fp8(weight, (32, 32), torch.bfloat16)
    else:
        codes, scale, wide = round_fp8(weight, (1, 0), torch.bfloat16)
    out[module + ".weight"], out[module + ".weight_scale"] = codes, scale
    return wide


FP8_CONFIG = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
              "weight_block_size": [48, 64], "modules_to_not_convert": ["lm_head"]}


def fp8_group(targets, strategy, **more):
    return {"targets": targets, "output_activations": None,
            "input_activations": {"num_bits": 8, "type": "float", "strategy": "token",
                                  "dynamic": True, "symmetric": True},
            "weights": {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False,
                        "strategy": strategy, **more}}


FP8_COMPRESSED_CONFIG = {
    "quant_method": "compressed-tensors", "format": "float-quantized",
    "quantization_status": "compressed", "ignore": ["lm_head"], "kv_cache_scheme": None,
    "config_groups": {
        "group_0": fp8_group(["re:.*self_attn\\.o_proj$"], "tensor"),
        "group_1": fp8_group(["re:.*down_proj$"], "block", block_structure=[32, 32]),
        "group_2": fp8_group(["Linear"], "channel"),
    }}


def make_quantised(root, tokens, name, pack, quantization):
    source, folder = root / "llama31", root / name
    folder.mkdir()
    tensors = load_file(source / "model.safetensors")
    out, wide = {}, dict(tensors)
    for module in linear_modules(tensors):
        wide[module + ".weight"] = pack(module, tensors[module + ".weight"], out)
    for key, value in tensors.items():
        if key.removesuffix(".weight") not in linear_modules(tensors):
            out[key] = value
    save_file(out, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = load_float32(source)
    model.load_state_dict({k: v.float() for k, v in wide.items()}, strict=False)
    write_expected(folder, model, tokens)


GGUF_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}


def gguf_tensor_name(name):
    module, kind = name.rsplit(".", 1)
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if module in whole:
        return f"{whole[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.{kind}"


def pair_rows(tensor, heads):
    """Llama's rows of a head as GGUF has them: i and i + d/2 become neighbours."""
    return (tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
            .swapaxes(1, 2).reshape(tensor.shape))


def gguf_metadata(writer, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    return head_dim


def llama3_divisors(head_dim, rope):
    old = rope["original_max_position_embeddings"]
    low, high = old / rope["low_freq_factor"], old / rope["high_freq_factor"]
    divisors = []
    for i in range(0, head_dim, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        smooth = (old / wave - rope["low_freq_factor"]) / (
            rope["high_freq_factor"] - rope["low_freq_factor"])
        blend = 1 / ((1 - smooth) / rope["factor"] + smooth)
        divisors.append(1.0 if wave < high else rope["factor"] if wave > low else blend)
    return np.array(divisors, dtype=np.float32)


def write_gguf(folder, config, tensors, architecture, types):
    """`types(name, tensor)` is the storage type of a matrix; vectors are F32."""
    writer = gguf.GGUFWriter(folder / "model.gguf", architecture)
    head_dim = gguf_metadata(writer, config)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(head_dim, config.rope_parameters))
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if architecture == "llama" and "q_proj" in name:
            values = pair_rows(values, config.num_attention_heads)
        if architecture == "llama" and "k_proj" in name:
            values = pair_rows(values, config.num_key_value_heads)
        kind = types(name, tensor) if tensor.dim() == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(gguf_tensor_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_gguf(root):
    kinds = {torch.bfloat16: gguf.GGMLQuantizationType.BF16,
             torch.float16: gguf.GGMLQuantizationType.F16,
             torch.float32: gguf.GGMLQuantizationType.F32}
    for name, architecture in (("llama31", "llama"), ("llama_bias", "llama"), ("qwen3", "qwen3")):
        folder = root / name
        write_gguf(folder, AutoConfig.from_pretrained(folder), load_file(folder / "model.safetensors"),
                   architecture, lambda _, tensor: kinds[tensor.dtype])


def make_gguf_qwen2(root, tokens):
    """Qwen2 without a window, which GGUF does not carry, in blocks of 4, 5 and 8 bits."""
    source, folder = root / "qwen2", root / "gguf_qwen2"
    make_gguf_quantised(source, folder, "qwen2", tokens, use_sliding_window=False,
                        layer_types=["full_attention"] * 2)


def make_gguf_quantised(source, folder, architecture, tokens, **changes):
    folder.mkdir()
    kind = gguf.GGMLQuantizationType
    by_name = {"q_proj": kind.Q4_0, "k_proj": kind.Q4_1, "v_proj": kind.Q8_0, "o_proj": kind.Q5_0,
               "gate_proj": kind.Q5_1, "up_proj": kind.Q4_1, "down_proj": kind.Q8_0}

    def types(name, _):
        return next((t for part, t in by_name.items() if part in name), kind.Q8_0)

    tensors = load_file(source / "model.safetensors")
    config = AutoConfig.from_pretrained(source)
    for key, value in changes.items():
        setattr(config, key, value)
    write_gguf(folder, config, tensors, architecture, types)
    wide = {name: torch.from_numpy(gguf.quants.dequantize(
        gguf.quants.quantize(t.float().numpy(), types(name, t)), types(name, t)))
        for name, t in tensors.items() if t.dim() == 2}
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32,
                                             attn_implementation="eager").eval()
    model.load_state_dict({**{k: v.float() for k, v in tensors.items()}, **wide}, strict=False)
    write_expected(folder, model, tokens)


ROPES = [
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0,
     "original_max_position_embeddings": 32768},
    {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "mscale": 1.0,
     "mscale_all_dim": 0.8, "beta_fast": 32, "beta_slow": 1,
     "original_max_position_embeddings": 4096, "truncate": False},
    {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 32.0,
     "short_factor": [1.0 + 0.25 * i for i in range(32)],
     "long_factor": [1.0 + 0.25 * i for i in range(32)], "original_max_position_embeddings": 4096},
]


def make_ropes(root):
    cases = []
    for rope in ROPES:
        config = LlamaConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=131072,
                             rope_parameters=dict(rope))
        if rope["rope_type"] == "default":
            frequencies = [rope["rope_theta"] ** (-2 * i / 64) for i in range(32)]
            factor = 1.0
        else:
            values, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, device="cpu")
            frequencies = values.tolist()
        cases.append({"rope_parameters": rope, "head_dim": 64, "max_positions": 131072,
                      "inverse_frequencies": frequencies, "attention_factor": factor})
    (root / "ropes.json").write_text(json.dumps({"cases": cases}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = pathlib.Path(__file__).parent.parent / "tests/golden/model"
    parser.add_argument("--output", type=pathlib.Path, default=default)
    root = parser.parse_args().output
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    torch.set_num_threads(1)
    tokens = torch.randint(3, VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(99))
    make_families(root, tokens)
    make_sharded(root)
    make_quantised(root, tokens, "awq", pack_awq, AWQ_CONFIG)
    make_quantised(root, tokens, "compressed_tensors", pack_compressed, COMPRESSED_CONFIG)
    make_quantised(root, tokens, "fp8", pack_fp8, FP8_CONFIG)
    make_quantised(root, tokens, "fp8_compressed", pack_fp8_compressed, FP8_COMPRESSED_CONFIG)
    make_gguf(root)
    make_gguf_qwen2(root, tokens)
    make_gguf_quantised(root / "llama31", root / "gguf_llama", "llama", tokens)
    make_ropes(root)


if __name__ == "__main__":
    main()
