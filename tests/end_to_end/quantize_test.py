"""`quern quantize` whole: methods, formats, a full disk, Ctrl-C and a kill in the middle."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import tempfile
import time
import unittest

import tiny_model
from quern import BINARY, quern

TEXT = "Grain goes in at the top, and flour comes out below; the miller takes his share. " * 200


def digest(directory):
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.suffix == ".safetensors"}


class QuantizeTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.model = tiny_model.make(self.root / "model")
        (self.root / "text.txt").write_text(TEXT)

    def tearDown(self):
        self.folder.cleanup()

    def arguments(self, out, method="best", *more):
        return ("quantize", self.model, "-o", self.root / out, "--method", method, "--group-size", 32,
                "--calibration", self.root / "text.txt", "--calibration-windows", 16,
                "--calibration-length", 128, *more)

    def test_every_method_and_format_runs_again_and_scores(self):
        losses = {}
        for fmt in ("awq", "compressed-tensors"):
            for method in ("rtn", "awq", "best"):
                out = f"{method}-{fmt}"
                done = quern(*self.arguments(out, method, "--format", fmt, "--json"))
                self.assertEqual(done.status, 0, done)
                report = done.json()
                for key in ("weight_bytes", "seconds", "peak_rss_bytes", "layers"):
                    self.assertIn(key, report)
                files = {p.name for p in (self.root / out).iterdir()}
                self.assertLessEqual({"config.json", "model.safetensors", "tokenizer.json",
                                      "tokenizer_config.json", "quern-report.json"}, files)
                config = json.loads((self.root / out / "config.json").read_text())
                self.assertEqual(config["quantization_config"]["quant_method"], fmt)
                score = quern("eval", self.root / out, "--text", self.root / "text.txt", "--baseline",
                              self.model, "--context", 256, "--max-tokens", 4096, "--json",
                              "--precision", "float32")
                self.assertEqual(score.status, 0, score)
                losses[method, fmt] = score.json()["kl_divergence_nats"]
        for method in ("rtn", "awq", "best"):
            self.assertAlmostEqual(losses[method, "awq"], losses[method, "compressed-tensors"],
                                   delta=0.02 * losses[method, "awq"])
        self.assertLess(losses["best", "awq"], losses["rtn", "awq"])

    def test_the_same_input_gives_the_same_bytes_on_any_number_of_threads(self):
        for out, threads in (("a", 1), ("b", 3)):
            self.assertEqual(quern(*self.arguments(out, "best", "--threads", threads)).status, 0)
        self.assertEqual(digest(self.root / "a"), digest(self.root / "b"))

    def test_a_killed_run_continues_to_the_same_bytes(self):
        self.assertEqual(quern(*self.arguments("whole")).status, 0)
        for delay in (0.05, 0.2, 0.4):
            process = subprocess.Popen([BINARY, *map(str, self.arguments("cut"))],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            process.kill()
            process.wait()
            if (self.root / "cut").exists():
                break  # it was done before the kill
        done = quern(*self.arguments("cut")) if not (self.root / "cut").exists() else None
        if done is not None:
            self.assertEqual(done.status, 0, done)
        self.assertEqual(digest(self.root / "whole"), digest(self.root / "cut"))

    def test_ctrl_c_leaves_nothing_under_the_final_name(self):
        process = subprocess.Popen([BINARY, *map(str, self.arguments("cut"))],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and not list(self.root.glob("cut*")):
            time.sleep(0.001)  # until it works
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        if process.returncode == 0:
            self.skipTest("finished before the signal")
        self.assertEqual(process.returncode, 130)
        self.assertFalse((self.root / "cut").exists())

    def test_a_full_disk_is_an_error_and_leaves_nothing_under_the_final_name(self):
        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        done = quern(*self.arguments("full", "rtn"), preexec=small_files)
        self.assertEqual(done.status, 10, done)
        self.assertIn("write", done.err)
        self.assertFalse((self.root / "full").exists())

    @unittest.skipIf(os.geteuid() == 0, "the superuser may write anywhere")
    def test_a_folder_that_may_not_be_written_is_an_error(self):
        self.root.chmod(0o500)
        done = quern(*self.arguments("x", "rtn"))
        self.root.chmod(0o700)
        self.assertEqual(done.status, 10, done)

    def test_calibrates_on_its_own_text_when_there_is_none(self):
        done = quern("quantize", self.model, "-o", self.root / "own", "--method", "awq", "--group-size", 32,
                     "--calibration-windows", 8, "--calibration-length", 64, "--json")
        self.assertEqual(done.status, 0, done)
        self.assertEqual(done.json()["plan"]["windows"], 8)

    def test_reads_json_lines(self):
        path = self.root / "text.jsonl"
        path.write_text("\n".join(json.dumps({"text": TEXT[:2000]}) for _ in range(4)) + "\n\n" +
                        json.dumps({"messages": [{"role": "user", "content": TEXT[:500]}]}) + "\n")
        done = quern("quantize", self.model, "-o", self.root / "lines", "--method", "awq", "--group-size", 32,
                     "--calibration", path, "--calibration-windows", 8, "--calibration-length", 128)
        self.assertEqual(done.status, 0, done)
        path.write_text('{"text": "x"}\n{"txt": "y"}\n')
        done = quern("quantize", self.model, "-o", self.root / "bad", "--method", "awq", "--group-size", 32,
                     "--calibration", path)
        self.assertEqual(done.status, 2, done)
        self.assertIn("text.jsonl:2", done.err)


if __name__ == "__main__":
    unittest.main()
