"""Runs `quern load` against `quern serve` and against servers that misbehave."""

import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
import xml.etree.ElementTree

import tiny_model
from quern import BINARY, quern
from serve_test import KEY, Served

TIMEOUT_S = 120


def load(url, *arguments, **keywords):
    return quern("load", url, "-q", *arguments, **keywords)


class AgainstQuern(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        cls.model = tiny_model.make(cls.path / "tiny")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def serve(self, *arguments):
        served = Served(self.model, "--log", "none", *arguments)
        self.addCleanup(served.process.wait)
        self.addCleanup(served.process.stderr.close)
        self.addCleanup(served.process.stdout.close)
        self.addCleanup(served.process.kill)
        return served

    def test_measures_a_closed_loop(self):
        served = self.serve()
        plot, lines = self.path / "run.svg", self.path / "run.jsonl"
        outcome = load(served.ready["url"], "--requests", 40, "--concurrency", 4, "--input-tokens",
                       120, "--output-tokens", "uniform(5,20)", "--ignore-eos", "--check-usage",
                       "--slo", "ttft=100s,tpot=100s,e2e=100s", "--plot", plot, "--output", lines,
                       "--warmup", 3, "--json")
        self.assertEqual(outcome.status, 0, outcome)
        report = outcome.json()
        self.assertEqual(report["requests"]["sent"], 40)
        self.assertEqual(report["requests"]["ok"], 40)
        self.assertLessEqual(report["concurrency_max"], 4)
        self.assertEqual(report["connections"], report["concurrency_max"])
        self.assertEqual(report["goodput"]["share"], 1)
        self.assertEqual(report["usage"], {"checked": 40, "problems": []})
        self.assertEqual(report["settings"]["token_counts"], "server")
        for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
            self.assertLessEqual(report[name]["median"], report[name]["p99"])
        # The server counts every prompt near what was asked.
        self.assertGreater(report["input_tokens_per_request"]["mean"], 117)
        self.assertLess(report["input_tokens_per_request"]["max"], 123)
        # What was counted here is what the server counted, the warm-up with it.
        requests = [json.loads(line) for line in lines.read_text().splitlines()]
        self.assertEqual(sorted(request["index"] for request in requests), list(range(40)))
        self.assertEqual(sum(r["completion_tokens"] for r in requests), report["output_tokens"])
        self.assertEqual({r["completion_tokens"] - r["max_tokens"] for r in requests}, {0})
        self.assertEqual(served.metric("vllm:request_success_total"), 43)
        self.assertNotIn("content", lines.read_text())
        root = xml.etree.ElementTree.parse(plot).getroot()
        self.assertTrue(root.tag.endswith("svg"))

    def test_sends_the_same_requests_from_the_same_seed(self):
        served = self.serve()
        seen = []
        for seed in (1, 1, 2):
            lines = self.path / "seeded.jsonl"
            outcome = load(served.ready["url"], "--requests", 20, "--rate", 500, "--input-tokens",
                           "lognormal(60,0.5)", "--output-tokens", "uniform(1,9)", "--ignore-eos",
                           "--seed", seed, "--output", lines, "--endpoint", "/v1/completions")
            self.assertEqual(outcome.status, 0, outcome)
            requests = [json.loads(line) for line in lines.read_text().splitlines()]
            seen.append(sorted((r["index"], r["prompt_tokens"], r["max_tokens"]) for r in requests))
        self.assertEqual(seen[0], seen[1])
        self.assertNotEqual(seen[0], seen[2])

    def test_leaves_nothing_behind_after_disconnects_and_hostile_bodies(self):
        served = self.serve()
        outcome = load(served.ready["url"], "--requests", 150, "--concurrency", 16,
                       "--input-tokens", 100, "--output-tokens", 40, "--ignore-eos",
                       "--disconnect-fraction", 0.4, "--hostile-fraction", 0.4, "--json")
        self.assertEqual(outcome.status, 0, outcome)
        requests = outcome.json()["requests"]
        self.assertEqual(requests["failed"], 0)
        self.assertGreater(requests["disconnected"], 30)
        self.assertGreater(requests["hostile_rebuffed"], 30)
        self.assertEqual(requests["ok"] + requests["disconnected"] + requests["hostile_rebuffed"],
                         150)
        while served.metric("vllm:num_requests_running") + served.metric(
                "vllm:num_requests_waiting") > 0:
            pass
        self.assertEqual(served.metric("vllm:kv_cache_usage_perc"), 0)

    def test_counts_refusals_as_no_failure(self):
        served = self.serve("--max-sequences", 1, "--max-queued", 2)
        outcome = load(served.ready["url"], "--requests", 30, "--rate", "inf", "--output-tokens",
                       60, "--input-tokens", 60, "--ignore-eos", "--json")
        self.assertEqual(outcome.status, 0, outcome)
        report = outcome.json()
        self.assertGreater(report["requests"]["ok"], 0)
        self.assertGreater(report["requests"]["refused_by_status"]["503"], 0)
        self.assertEqual(report["requests"]["failed"], 0)
        self.assertGreater(report["refusal_ms"]["p99"], 0)

    def test_finds_shared_prefixes_in_the_cache(self):
        served = self.serve()
        outcome = load(served.ready["url"], "--requests", 10, "--concurrency", 1, "--warmup", 1,
                       "--input-tokens", 60, "--prefix-tokens", 200, "--output-tokens", 4, "--json")
        self.assertEqual(outcome.status, 0, outcome)
        self.assertGreater(outcome.json()["cached_input_tokens"], 10 * 150)

    def test_takes_prompts_of_a_file(self):
        served = self.serve()
        prompts, lines = self.path / "prompts.jsonl", self.path / "prompted.jsonl"
        prompts.write_text('"Hello"\n{"messages": [{"role": "user", "content": "A longer one"}], '
                           '"output_tokens": 3}\n')
        outcome = load(served.ready["url"], "--requests", 4, "--concurrency", 1, "--prompts",
                       prompts, "--output-tokens", 5, "--ignore-eos", "--output", lines)
        self.assertEqual(outcome.status, 0, outcome)
        requests = [json.loads(line) for line in lines.read_text().splitlines()]
        self.assertEqual([r["completion_tokens"] for r in requests], [5, 3, 5, 3])

    def test_ends_with_the_time(self):
        served = self.serve()
        outcome = load(served.ready["url"], "--duration", 0.3, "--concurrency", 2,
                       "--input-tokens", 30, "--output-tokens", 5, "--json")
        self.assertEqual(outcome.status, 0, outcome)
        self.assertGreater(outcome.json()["requests"]["ok"], 1)

    def test_needs_the_key(self):
        keys = self.path / "keys"
        keys.write_text(f"alice {KEY}\n")
        served = self.serve("--api-keys", keys)
        small = ("--requests", 2, "--input-tokens", 20, "--output-tokens", 2)
        outcome = load(served.ready["url"], *small, env={"OPENAI_API_KEY": ""})
        self.assertEqual(outcome.status, 7, outcome)
        self.assertIn("--api-key", outcome.err)
        for outcome in (load(served.ready["url"], *small, env={"OPENAI_API_KEY": KEY}),
                        load(served.ready["url"], *small, "--api-key", KEY)):
            self.assertEqual(outcome.status, 0, outcome)

    def test_speaks_tls(self):
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days",
             "1", "-keyout", self.path / "tls.key", "-out", self.path / "tls.crt"],
            capture_output=True)
        if made.returncode != 0:
            self.skipTest("no openssl program")
        served = self.serve("--tls-cert", self.path / "tls.crt", "--tls-key", self.path / "tls.key")
        small = ("--requests", 10, "--concurrency", 3, "--input-tokens", 20, "--output-tokens", 2)
        outcome = load(served.ready["url"], *small)
        self.assertEqual(outcome.status, 10, outcome)
        self.assertIn("--insecure-tls", outcome.err)
        for flags in (("--insecure-tls",), ("--ca-file", self.path / "tls.crt")):
            outcome = load(served.ready["url"], *small, *flags, "--json")
            self.assertEqual(outcome.status, 0, outcome)
            self.assertEqual(outcome.json()["connections"], 3)

    def test_reports_what_there_is_when_interrupted(self):
        served = self.serve()
        lines = self.path / "interrupted.jsonl"
        process = subprocess.Popen(
            [BINARY, "load", served.ready["url"], "-q", "--json", "--duration", "1000",
             "--concurrency", "2", "--input-tokens", "20", "--output-tokens", "5", "--output",
             str(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while served.metric("vllm:request_success_total") < 10:
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130, err)
        report = json.loads(out)
        self.assertEqual(report["end"], "interrupted")
        self.assertGreaterEqual(report["requests"]["ok"], 9)
        self.assertEqual(len(lines.read_text().splitlines()), report["requests"]["sent"])


class DyingServer:
    """Streams answers until `lives` requests have come, then is gone in mid-answer."""

    def __init__(self, lives):
        outer = self
        self.left = lives
        self.lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply(200, json.dumps({"data": [{"id": "stand-in"}]}))

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                if not self.path.startswith("/v1/"):
                    return self.reply(404, "{}")
                with outer.lock:
                    outer.left -= 1
                    dying = outer.left < 0
                event = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                self.close_connection = True
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                if dying:
                    outer.server.socket.close()
                    outer.stop()
                else:
                    self.wfile.write(b"data: [DONE]\n\n")

            def reply(self, status, text):
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # clients that close are part of the test

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            self.server.serve_forever(poll_interval=0.01)
        except (OSError, ValueError):
            pass  # its socket was closed

    def stop(self):
        threading.Thread(target=self.server.shutdown, daemon=True).start()


class AgainstOthers(unittest.TestCase):
    def test_takes_a_server_without_usage_or_a_tokenizer(self):
        server = DyingServer(lives=10 ** 9)
        outcome = load(f"http://127.0.0.1:{server.port}/v1", "--requests", 20, "--json")
        self.assertEqual(outcome.status, 0, outcome)
        report = outcome.json()
        self.assertEqual(report["settings"]["model"], "stand-in")
        self.assertEqual(report["settings"]["token_counts"], "estimate")
        self.assertEqual(report["output_tokens"], 20)
        self.assertEqual(report["usage"]["problems"][0]["count"], 20)
        outcome = load(f"http://127.0.0.1:{server.port}", "--requests", 20, "--check-usage")
        self.assertEqual(outcome.status, 5, outcome)
        self.assertIn("no usage", outcome.err)
        server.stop()

    def test_survives_a_server_that_dies(self):
        server = DyingServer(lives=25)
        outcome = load(f"http://127.0.0.1:{server.port}", "--requests", 5000, "--concurrency", 4,
                       "--json")
        self.assertEqual(outcome.status, 10, outcome)
        self.assertIn("still", outcome.err)
        report = outcome.json()
        self.assertEqual(report["end"], "unreachable")
        self.assertEqual(report["requests"]["ok"], 25)
        self.assertLess(report["requests"]["sent"], 1000)
        messages = " ".join(error["message"] for error in report["errors"])
        self.assertIn("cannot connect: Connection refused", messages)
        self.assertIn("finish_reason", messages)
        self.assertEqual(report["requests"]["interrupted"], 0)

    def test_says_that_nobody_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        outcome = load(f"http://127.0.0.1:{port}")
        self.assertEqual(outcome.status, 10)
        self.assertEqual(outcome.out, "")
        self.assertIn(f"http://127.0.0.1:{port}", outcome.err)
        self.assertIn("quern serve", outcome.err)

    def test_names_what_is_wrong_with_the_command_line(self):
        for arguments, named in (
                (["ftp://a"], "ftp://a"),
                (["a", "--rate", "fast"], "--rate"),
                (["a", "--rate", "0"], "--rate is 0"),
                (["a", "--input-tokens", "zipf(1)"], "--input-tokens"),
                (["a", "--output-tokens", "0"], "--output-tokens"),
                (["a", "--endpoint", "/v1/embeddings"], "--endpoint"),
                (["a", "--slo", "ttft=5"], "--slo"),
                (["a", "--prompts", "/nowhere/p"], "/nowhere/p"),
                (["a", "--extra-body", "{"], "--extra-body"),
                (["a", "--rate", "inf", "--duration", "5"], "--concurrency"),
                (["a", "--concurrency", "900000"], "ulimit")):
            outcome = load(*arguments)
            self.assertIn(outcome.status, (2, 3), outcome)
            self.assertEqual(outcome.out, "")
            self.assertIn(named, outcome.err)

    def test_finds_out_before_the_run_that_a_file_cannot_be_written(self):
        outcome = load("http://127.0.0.1:1", "--plot", "/nowhere/plot.svg")
        self.assertEqual(outcome.status, 10)
        self.assertIn("/nowhere/plot.svg", outcome.err)


if __name__ == "__main__":
    unittest.main()
