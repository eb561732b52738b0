"""Broken, hostile and missing files: one clear sentence, a status of its own, never a signal."""

import json
import pathlib
import random
import struct
import tempfile
import unittest

import tiny_model
from quern import quern

READERS = ("inspect", "logits", "tokenize", "generate", "eval", "bench", "quantize")


class BadInputTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.model = tiny_model.make(self.root / "model")

    def tearDown(self):
        self.folder.cleanup()

    def command(self, name, model):
        text = self.root / "text.txt"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 40)
        return {
            "inspect": (model,),
            "logits": (model, "--token-ids", "1,2,3"),
            "tokenize": (model, "--text", text),
            "generate": (model, "--prompt", "x", "--max-tokens", 2),
            "eval": (model, "--text", text, "--context", 64, "--max-tokens", 128),
            "bench": (model, "--prefill", 16, "--decode", 2, "--batch", 1),
            "quantize": (model, "-o", self.root / "out", "--method", "rtn", "--group-size", 32),
        }[name]

    def refused(self, name, model, *words):
        done = quern(name, *self.command(name, model))
        self.assertGreater(done.status, 0, (name, done))
        self.assertLess(done.status, 11, (name, done))
        lines = [line for line in done.err.strip().splitlines() if line.startswith("quern: ")]
        self.assertEqual(len(lines), 1, (name, done))
        for word in words:
            self.assertIn(word, lines[0], (name, done))
        return done

    def edit_config(self, **changes):
        path = self.model / "config.json"
        config = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                config.pop(key)
            else:
                config[key] = value
        path.write_text(json.dumps(config))

    def test_the_untouched_model_works_in_every_command(self):
        for name in READERS:
            done = quern(name, *self.command(name, self.model))
            self.assertEqual(done.status, 0, (name, done))

    def test_a_missing_model_is_named_with_the_remedy(self):
        for name in READERS:
            self.assertEqual(self.refused(name, "no-such-model", "no-such-model", "pull").status, 3)

    def test_an_empty_directory_is_no_model(self):
        empty = self.root / "empty"
        empty.mkdir()
        self.refused("inspect", empty, "config.json")

    def test_an_unknown_architecture_is_named_with_those_known(self):
        self.edit_config(architectures=["MysteryForCausalLM"])
        self.refused("inspect", self.model, "MysteryForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM")

    def test_an_unknown_quantisation_method_is_named_with_those_known(self):
        self.edit_config(quantization_config={"quant_method": "mystery"})
        self.refused("logits", self.model, "mystery", "awq", "compressed-tensors")

    def test_config_values_out_of_range_are_named(self):
        for key, value in (("hidden_size", -64), ("hidden_size", "64"), ("num_attention_heads", 0),
                           ("num_key_value_heads", 3), ("num_hidden_layers", 10**12),
                           ("vocab_size", 2**62), ("hidden_act", "mystery")):
            tiny_model.make(self.model, **{key: value})
            self.refused("logits", self.model, "config.json", key)
        tiny_model.make(self.model)
        self.edit_config(hidden_size=None)
        self.refused("logits", self.model, "config.json", "hidden_size")

    def test_sizes_that_the_tensors_contradict_are_named(self):
        tiny_model.make(self.model, intermediate_size=256)
        self.refused("logits", self.model, "gate_proj")

    def test_a_missing_tensor_is_named(self):
        entries = [e for e in tiny_model.tensors() if "layers.1.mlp.up_proj" not in e[0]]
        (self.model / "model.safetensors").write_bytes(tiny_model.safetensors(entries))
        self.refused("logits", self.model, "model.layers.1.mlp.up_proj")

    def test_a_missing_tokenizer_is_named(self):
        (self.model / "tokenizer.json").unlink()
        for name in ("tokenize", "generate", "eval"):
            self.refused(name, self.model, "tokenizer")
        self.assertEqual(quern("logits", self.model, "--token-ids", "1").status, 0)

    def test_an_unknown_dtype_is_named(self):
        path = self.model / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"F32"', b'"F99"', 1))
        self.refused("inspect", self.model, "F99", "BF16")

    def test_nan_and_infinite_weights_are_refused_by_name(self):
        for bad in (float("nan"), float("inf")):
            entries = []
            for name, shape, content in tiny_model.tensors():
                if name == "model.layers.0.mlp.down_proj.weight":
                    content = content[:40] + struct.pack("<f", bad) + content[44:]
                entries.append((name, shape, content))
            (self.model / "model.safetensors").write_bytes(tiny_model.safetensors(entries))
            for command in ("logits", "quantize"):
                self.refused(command, self.model, "model.layers.0.mlp.down_proj")
            self.assertFalse((self.root / "out").exists())

    def test_a_file_cut_anywhere_is_refused(self):
        path = self.model / "model.safetensors"
        content = path.read_bytes()
        generator = random.Random(7)
        for length in [0, 1, 7, 8, 9, 100, *(generator.randrange(len(content)) for _ in range(10))]:
            path.write_bytes(content[:length])
            self.refused("inspect", self.model, "model.safetensors")

    def test_hostile_headers_are_refused(self):
        path = self.model / "model.safetensors"
        hole = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}
        overlap = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                   "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}
        huge = {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 12]}}
        for header in (hole, overlap, huge, [], {"a": 1}):
            text = json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 12)
            self.refused("inspect", self.model, "model.safetensors")
        path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
        self.refused("inspect", self.model, "model.safetensors")
        path.write_bytes(struct.pack("<Q", 60000) + b"[" * 60000)
        self.refused("inspect", self.model, "model.safetensors")

    def test_a_broken_gguf_is_refused(self):
        path = self.root / "x.gguf"
        for content in (b"", b"GGUF", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0" + b"\xff" * 64,
                        b"GGUF\x09\0\0\0" + b"\0" * 64, b"not a model" * 100):
            path.write_bytes(content)
            for name in ("inspect", "generate"):
                self.refused(name, path, "x.gguf")

    def test_broken_json_is_refused_by_file(self):
        for name, command in (("config.json", "inspect"), ("tokenizer.json", "tokenize")):
            tiny_model.make(self.model)
            for text in ("", "{", "[]", "null", '{"a": ' * 5000):
                (self.model / name).write_text(text)
                self.refused(command, self.model, name)

    def test_a_broken_chat_template_is_refused_where_it_is_needed(self):
        path = self.model / "tokenizer_config.json"
        for template in ("{% for m in", "{{ messages[0].nothing.more }}", "{{ raise_exception('no') }}",
                         "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"):
            path.write_text(json.dumps({"chat_template": template}))
            done = quern("generate", self.model, "--chat", "--prompt", "x", "--max-tokens", 2)
            self.assertIn(done.status, (2, 3, 4, 6), done)
            self.assertIn("template", done.err)

    def test_a_group_that_does_not_divide_is_named(self):
        wide = tiny_model.make(self.root / "wide")
        done = quern("quantize", wide, "-o", self.root / "out", "--method", "rtn", "--group-size", 128)
        self.assertEqual(done.status, 2, done)
        self.assertIn("q_proj", done.err)
        self.assertFalse((self.root / "out").exists())

    def test_token_ids_outside_the_vocabulary_are_refused(self):
        for ids in ("260", "-1", "1,2,99999999"):
            done = quern("logits", self.model, "--token-ids", ids)
            self.assertEqual(done.status, 2, done)

    def test_impossible_flags_are_refused(self):
        for arguments in (("bench", self.model, "--batch", "0"), ("bench", self.model, "--decode", "-1"),
                          ("generate", self.model, "--prompt", "x", "--temperature", "-1"),
                          ("generate", self.model, "--prompt", "x", "--top-p", "2"),
                          ("eval", self.model), ("eval", self.model, "--text", "x", "--context", "1"),
                          ("quantize", self.model, "-o", self.root / "o", "--bits", "5"),
                          ("quantize", self.model, "-o", self.root / "o", "--method", "magic"),
                          ("quantize", self.model, "-o", self.root / "o", "--memory-budget", "lots"),
                          ("inspect", self.model, "--isa", "mmx"), ("nonsense",), ()):
            done = quern(*arguments)
            self.assertIn(done.status, (2, 3, 4), (arguments, done))
            self.assertTrue(done.err.strip(), arguments)

    def test_models_of_two_vocabularies_are_both_named(self):
        other = tiny_model.make(self.root / "other", vocabulary=272)
        text = self.command("eval", self.model)[2]
        sizes = ("--text", text, "--context", 64, "--max-tokens", 128)
        prices = ("--hardware-usd-per-hour", 1, "--output-usd-per-million", 1, "--batch", 1, "--prefill", 8,
                  "--decode", 2, "--repeat", 1)
        for command in (("eval", self.model, other, *sizes), ("eval", other, "--baseline", self.model, *sizes),
                        ("compare", self.model, other, *sizes, *prices)):
            done = quern(*command)
            self.assertEqual(done.status, 2, done)
            for word in (f"{self.model} has a vocabulary of 260", f"{other} one of 272"):
                self.assertIn(word, done.err)
            self.assertEqual(done.out, "")

    def test_an_output_that_exists_is_left_alone(self):
        out = self.root / "out"
        out.mkdir()
        (out / "mine").write_text("keep")
        done = quern("quantize", self.model, "-o", out, "--method", "rtn", "--group-size", 32)
        self.assertEqual(done.status, 5, done)
        self.assertEqual([p.name for p in out.iterdir()], ["mine"])


if __name__ == "__main__":
    unittest.main()
