"""`quern synth` whole: shapes, both widths, the same numbers again, bad input, a full disk, Ctrl-C."""

import json
import pathlib
import resource
import signal
import subprocess
import tempfile
import time
import unittest

from quern import BINARY, GOLDEN, quern

CONFIG = {"architectures": ["Qwen2ForCausalLM"], "vocab_size": 320, "hidden_size": 64,
          "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True}
PARAMETERS = 320 * 64 + 3 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 64 + 2 * 32 + 3 * 64 * 192) + 64


class SynthTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        (self.root / "config.json").write_text(json.dumps(CONFIG))

    def tearDown(self):
        self.folder.cleanup()

    def synth(self, out, *more, config=None, **options):
        return quern("synth", config or self.root / "config.json", "-o", self.root / out, *more, **options)

    def weights(self, out):
        return (self.root / out / "model.safetensors").read_bytes()

    def test_writes_both_widths_that_load_and_run(self):
        sizes = {}
        for out, more in (("w4", ()), ("w4ct", ("--format", "compressed-tensors", "--group-size", 32)),
                          ("w16", ("--bits", 16))):
            done = self.synth(out, "--json", *more)
            self.assertEqual(done.status, 0, done)
            self.assertEqual(done.json()["parameters"], PARAMETERS)
            sizes[out] = done.json()["weight_bytes"]
            seen = quern("inspect", self.root / out, "--context", 64, "--json")
            self.assertEqual(seen.json()["parameters"], PARAMETERS, seen)
            logits = quern("logits", self.root / out, "--token-ids", "1,2,3", "--json")
            self.assertEqual(logits.status, 0, logits)
            values = logits.json()["logits"]
            self.assertEqual(len(values), 320)
            self.assertGreater(max(values) - min(values), 0.1)  # neither zeros nor a constant
            self.assertLess(max(map(abs, values)), 100)
            speed = quern("bench", self.root / out, "--prefill", 16, "--decode", 4, "--batch", 2,
                          "--repeat", 1, "--json")
            self.assertEqual(speed.status, 0, speed)
        self.assertEqual(sizes["w16"], 2 * PARAMETERS)
        self.assertLess(sizes["w4"], 0.5 * sizes["w16"])

    def test_numbers_depend_on_the_seed_alone(self):
        for out, more in (("a", ("--threads", 1)), ("b", ("--threads", 3)), ("c", ("--seed", 1))):
            self.assertEqual(self.synth(out, *more).status, 0)
        self.assertEqual(self.weights("a"), self.weights("b"))
        self.assertNotEqual(self.weights("a"), self.weights("c"))

    def test_takes_the_config_of_any_model_quantised_ones_too(self):
        for name in ("llama31", "mistral", "qwen3", "awq", "fp8"):
            done = self.synth(name, "--group-size", 32, config=GOLDEN / name)
            self.assertEqual(done.status, 0, done)
            self.assertEqual(quern("inspect", self.root / name, "--context", 64, "--json").json()["parameters"],
                             quern("inspect", GOLDEN / name, "--context", 64, "--json").json()["parameters"])

    def test_refuses_what_cannot_work_and_writes_nothing(self):
        def config(name, **changes):
            path = self.root / name
            path.write_text(json.dumps({**CONFIG, **changes}))
            return path

        (self.root / "full").mkdir()
        (self.root / "full/file").write_text("")
        (self.root / "broken.json").write_text("{")
        (self.root / "list.json").write_text("[]")
        cases = [
            (3, "known shapes are llama-3.1-8b", "out", "nothing-like-it", ()),
            (2, "broken.json: not valid JSON", "out", self.root / "broken.json", ()),
            (2, "list.json: not a JSON object", "out", self.root / "list.json", ()),
            (4, "Mystery", "out", config("unknown.json", architectures=["Mystery"]), ()),
            (2, '"hidden_size" is 0', "out", config("none.json", hidden_size=0), ()),
            (2, "groups of 128 do not divide", "out", self.root / "config.json", ("--group-size", 128)),
            (5, "exists already", "full", self.root / "config.json", ()),
        ]
        for status, message, out, path, more in cases:
            done = self.synth(out, *more, config=path)
            self.assertEqual(done.status, status, done)
            self.assertIn(message, done.err)
            self.assertFalse((self.root / "out").exists())
            self.assertFalse(list(self.root.glob("*.part")))

    def test_a_full_disk_is_an_error_and_leaves_nothing_under_the_final_name(self):
        done = self.synth("out", preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
        self.assertEqual(done.status, 10, done)
        self.assertFalse((self.root / "out").exists())

    def test_ctrl_c_leaves_nothing(self):
        process = subprocess.Popen([BINARY, "synth", "llama-3.2-1b", "-o", str(self.root / "out"), "-q"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and not list(self.root.glob("out*")):
            time.sleep(0.001)  # until it works
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertFalse(list(self.root.glob("out*")))


if __name__ == "__main__":
    unittest.main()
