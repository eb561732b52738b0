#!/usr/bin/env python3
"""Makes tests/golden/tensor: small checkpoints and the float32 values that other programs see in
them. Needs numpy, gguf, torch, safetensors and compressed-tensors; run from the repository's root.

formats.gguf          one tensor of each GGUF type that is read, metadata of each type
formats.safetensors   the same tensors as float32, dequantised by the gguf package
types.safetensors     one tensor of each element type, written by the safetensors package
awq.safetensors       an AWQ "gemm" layer packed here, its codes and dequantised weight
ct.safetensors        layers packed and dequantised by the compressed-tensors package

and the seeds of tests/corpus/gguf_fuzz and tests/corpus/safetensors_fuzz.
"""

import pathlib

import gguf
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch

CORPUS = pathlib.Path("tests/corpus")
OUT = pathlib.Path("tests/golden/tensor")
ROWS, COLUMNS = 3, 512


def k_quant_blocks(rng, quant, rows, columns):
    """Random blocks whose f16 scales are ordinary numbers; every other byte is free."""
    elements, size = gguf.GGML_QUANT_SIZES[quant]
    blocks = rng.integers(0, 256, (rows, columns // elements, size), dtype=np.uint8)
    places = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}[quant]
    for place in places:
        scales = rng.uniform(-0.01, 0.01, blocks.shape[:2]).astype(np.float16)
        blocks[:, :, place : place + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def add_metadata(writer):
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60000)
    writer.add_int16("test.i16", -30000)
    writer.add_uint32("test.u32", 4000000000)
    writer.add_int32("test.i32", -2000000000)
    writer.add_uint64("test.u64", 1 << 62)
    writer.add_int64("test.i64", -(1 << 62))
    writer.add_float32("test.f32", 0.1)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "gr\u00fc\u00df dich")
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -1.5])
    writer.add_array("test.bools", [True, False])
    writer.add_array("test.strings", ["a", "", "\u4f60\u597d"])
    writer.add_array("test.nested", [[1, 2], [3]])


def make_gguf():
    expected = write_gguf(OUT / "formats.gguf", ROWS, COLUMNS)
    save_numpy(expected, OUT / "formats.safetensors")


def write_gguf(path, rows, columns):
    rng = np.random.default_rng(4)
    writer = gguf.GGUFWriter(path, "test")
    add_metadata(writer)
    expected = {}
    dense = [Type.F32, Type.F16, Type.BF16]
    simple = [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]
    for quant in dense + simple + [Type.Q4_K, Type.Q5_K, Type.Q6_K]:
        if quant in dense or quant in simple:
            values = rng.normal(0, 0.1, (rows, columns)).astype(np.float32)
            packed = gguf.quants.quantize(values, quant)
        else:
            packed = k_quant_blocks(rng, quant, rows, columns)
        raw = np.ascontiguousarray(packed)
        writer.add_tensor(f"{quant.name}.weight", raw, raw_dtype=quant)
        expected[f"{quant.name}.weight"] = gguf.quants.dequantize(raw, quant).astype(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def make_types():
    count = torch.arange(6)
    tensors = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "bool": count % 2 == 1}
    integers = ["int8", "uint8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
    floats = ["float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2"]
    for name in integers:
        tensors[name] = (count + 1).to(getattr(torch, name)).reshape(2, 3)
    for name in floats:
        tensors[name] = (count / 2 - 1).to(getattr(torch, name)).reshape(2, 3)
    save_torch(tensors, OUT / "types.safetensors", metadata={"format": "pt"})


def awq_words(codes):
    """codes [rows, outputs] into words [rows, outputs / 8]: nibble i holds channel order[i]."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    words = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for nibble, channel in enumerate(order):
        words |= codes[:, channel::8].astype(np.uint32) << np.uint32(4 * nibble)
    return words.view(np.int32)


def make_awq():
    rng = np.random.default_rng(5)
    inputs, outputs, group = 64, 24, 32
    codes = rng.integers(0, 16, (inputs, outputs))
    zeros = rng.integers(0, 16, (inputs // group, outputs))
    scales = rng.uniform(0.001, 0.1, zeros.shape).astype(np.float16)
    each = np.arange(inputs) // group
    weight = scales.astype(np.float32)[each] * (codes - zeros[each]).astype(np.float32)
    tensors = {
        "qweight": awq_words(codes),
        "qzeros": awq_words(zeros),
        "scales": scales,
        "weight": np.ascontiguousarray(weight.T),
    }
    save_numpy(tensors, OUT / "awq.safetensors")


def add_ct_case(tensors, name, bits, group, symmetric, dtype, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = shape
    groups = 1 if group is None else inputs // group
    args = QuantizationArgs(
        num_bits=bits,
        type="int",
        symmetric=symmetric,
        strategy="channel" if group is None else "group",
        group_size=group,
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    scale = (torch.rand(outputs, groups, generator=generator) * 0.1 + 0.01).to(dtype)
    zero = torch.randint(low, high + 1, (outputs, groups), generator=generator, dtype=torch.int8)
    if symmetric:
        zero = torch.zeros_like(zero)
    state = {
        "weight": torch.randn(outputs, inputs, generator=generator).to(dtype) * 0.3,
        "weight_scale": scale,
        "weight_zero_point": zero,
    }
    packed = PackedQuantizationCompressor.compress(state, scheme)
    for key, value in packed.items():
        tensors[f"{name}.{key}"] = value.contiguous()
    # In float32, so that the reader's exact values can be compared.
    wide = {**packed, "weight_scale": packed["weight_scale"].float()}
    weight = PackedQuantizationCompressor.decompress(wide, scheme)["weight"]
    tensors[f"{name}.weight"] = weight.float().contiguous()


def make_ct():
    tensors = {}
    shape = (10, 64)  # ten outputs: the last word of zero points is half full
    add_ct_case(tensors, "sym4", 4, 32, True, torch.bfloat16, shape, 1)
    add_ct_case(tensors, "asym4", 4, 32, False, torch.float16, shape, 2)
    add_ct_case(tensors, "channel4", 4, None, True, torch.float32, (3, 20), 3)
    add_ct_case(tensors, "asym8", 8, 64, False, torch.bfloat16, shape, 4)
    add_ct_case(tensors, "channel8", 8, None, True, torch.float32, (3, 10), 5)
    add_ct_case(tensors, "asymchannel4", 4, None, False, torch.float32, (9, 16), 6)
    save_torch(tensors, OUT / "ct.safetensors", metadata={"format": "pt"})


def make_corpus():
    for target in ("gguf_fuzz", "safetensors_fuzz"):
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
    write_gguf(CORPUS / "gguf_fuzz" / "formats", 1, 256)
    types = (OUT / "types.safetensors").read_bytes()
    (CORPUS / "safetensors_fuzz" / "types").write_bytes(types)
    headers = {
        "two": '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        '"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]}}',
        "overlap": '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},'
        '"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        "scalar_shape": '{"a":{"dtype":"U8","shape":8,"data_offsets":8}}',
        "unknown_field": '{"a":{"x":[{"y":null}],"dtype":"I64","shape":[],"data_offsets":[0,8]}}',
        "overflow": '{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}}',
        "metadata": '{"__metadata__":{"format":"pt"}}   ',
    }
    for name, header in headers.items():
        length = len(header).to_bytes(8, "little")
        data = b"" if name == "metadata" else bytes(8)
        (CORPUS / "safetensors_fuzz" / name).write_bytes(length + header.encode() + data)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    make_gguf()
    make_types()
    make_awq()
    make_ct()
    make_corpus()
