"""Runs `quern serve` on a tiny model and talks to it as clients do."""

import http.client
import json
import os
import pathlib
import resource
import signal
import socket
import ssl
import subprocess
import tempfile
import unittest

import tiny_model
from quern import BINARY, quern

KEY = "end-to-end-secret-key"
TIMEOUT_S = 120


class Served:
    """A server on a free port; its output is read until it is ready."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [BINARY, "serve", *map(str, arguments), "--port", "0", "--threads", "1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        text = ""
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError("the server did not start: " + self.process.stderr.read())
            text += line
            try:
                self.ready = json.loads(text)
                break
            except json.JSONDecodeError:
                continue
        self.port = int(self.ready["url"].rsplit(":", 1)[1])

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)

    def call(self, method, path, body=None, headers=None):
        connection = self.connect()
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()

    def metric(self, name):
        _, text = self.call("GET", "/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith(name + "{") or line.startswith(name + " "))

    def stop(self, sent=signal.SIGTERM):
        self.process.send_signal(sent)
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, err


def chat(**fields):
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 8, "temperature": 0, **fields}


def events(text):
    return [line[len("data: "):] for line in text.split("\n\n") if line.startswith("data: ")]


def deltas(text):
    return [json.loads(frame)["choices"][0]["delta"] for frame in events(text) if frame != "[DONE]"]


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = tiny_model.make(pathlib.Path(cls.folder.name) / "tiny")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def serve(self, *arguments, model=None):
        served = Served(model or self.model, *arguments)
        self.addCleanup(served.process.wait)
        self.addCleanup(served.process.stderr.close)
        self.addCleanup(served.process.stdout.close)
        self.addCleanup(served.process.kill)
        return served

    def test_answers_and_streams_the_same_text(self):
        served = self.serve()
        response, body = served.call("POST", "/v1/chat/completions", chat())
        self.assertEqual(response.status, 200, body)
        answer = json.loads(body)
        self.assertEqual(answer["object"], "chat.completion")
        self.assertGreater(answer["usage"]["completion_tokens"], 0)
        self.assertTrue(response.getheader("x-request-id"))
        response, body = served.call("POST", "/v1/chat/completions", chat(
            stream=True, stream_options={"include_usage": True}))
        self.assertEqual(response.getheader("content-type"), "text/event-stream")
        frames = events(body)
        self.assertEqual(frames[-1], "[DONE]")
        chunks = [json.loads(frame) for frame in frames[:-1]]
        text = "".join(choice["delta"].get("content") or ""
                       for chunk in chunks for choice in chunk["choices"])
        self.assertEqual(text, answer["choices"][0]["message"]["content"])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"],
                         answer["usage"]["completion_tokens"])
        self.assertEqual(served.metric("vllm:request_success_total"), 2)
        self.assertEqual(served.metric("vllm:generation_tokens_total"),
                         2 * answer["usage"]["completion_tokens"])

    def test_names_models_and_errors(self):
        served = self.serve("--served-model-name", "tiny")
        response, body = served.call("GET", "/v1/models")
        self.assertEqual([model["id"] for model in json.loads(body)["data"]], ["tiny"])
        response, body = served.call("POST", "/v1/chat/completions", chat(model="other"))
        self.assertEqual(response.status, 404)
        self.assertIn("other", json.loads(body)["error"]["message"])
        response, body = served.call("POST", "/v1/chat/completions", chat(temperature="hot"))
        self.assertEqual(response.status, 400)
        self.assertIn("temperature", json.loads(body)["error"]["message"])
        response, _ = served.call("GET", "/v1/nothing")
        self.assertEqual(response.status, 404)
        response, _ = served.call("PUT", "/v1/chat/completions", {})
        self.assertEqual(response.status, 405)
        self.assertIn("POST", response.getheader("allow"))

    def test_says_what_memory_it_takes(self):
        served = self.serve("--context", "512", "--max-sequences", "4")
        model = served.ready["models"][0]
        self.assertEqual(model["context"], 512)
        self.assertEqual(model["kv_cache_tokens"], 4 * 512)
        self.assertEqual(model["total_bytes"], model["weights_bytes"] + model["kv_cache_bytes"]
                         + model["scratch_bytes"])

    def test_cancels_when_the_client_goes(self):
        served = self.serve()
        connection = socket.create_connection(("127.0.0.1", served.port))
        body = json.dumps(chat(stream=True, max_tokens=1500, ignore_eos=True))
        connection.sendall((f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
                            f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
        self.assertIn(b"200 OK", connection.recv(4096))
        connection.close()
        while served.metric("vllm:num_requests_running") + served.metric(
                "vllm:num_requests_waiting") > 0:
            pass
        self.assertEqual(served.metric("vllm:kv_cache_usage_perc"), 0)

    def test_finishes_streams_on_sigterm(self):
        served = self.serve("--log", "none")
        connection = served.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(
            stream=True, max_tokens=200, ignore_eos=True)), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.readline()
        served.process.send_signal(signal.SIGTERM)
        self.assertTrue(response.read().decode().rstrip().endswith("data: [DONE]"))
        connection.close()
        _, err = served.process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(served.process.returncode, 0, err)

    def test_asks_for_keys_and_logs_their_names_alone(self):
        keys = pathlib.Path(self.folder.name) / "keys"
        keys.write_text(f"alice {KEY}\n")
        served = self.serve("--api-keys", keys)
        response, body = served.call("POST", "/v1/chat/completions", chat())
        self.assertEqual(response.status, 401)
        self.assertIn("error", json.loads(body))
        response, body = served.call("POST", "/v1/chat/completions", chat(),
                                     {"Authorization": "Bearer " + KEY})
        self.assertEqual(response.status, 200, body)
        self.assertEqual(served.call("GET", "/live")[0].status, 200)
        status, log = served.stop()
        self.assertEqual(status, 0)
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        self.assertIn("alice", [line.get("key") for line in lines])
        self.assertNotIn(KEY, log)
        self.assertNotIn("Hello", log)

    def test_a_draft_model_changes_no_answer(self):
        request = chat(max_tokens=60, temperature=0.8, seed=4, logprobs=True)
        plain = json.loads(self.serve().call("POST", "/v1/chat/completions", request)[1])
        served = self.serve("--draft-model", self.model)
        for _ in range(3):  # the policy first learns what a guess costs
            guessed = json.loads(served.call("POST", "/v1/chat/completions", request)[1])
            self.assertEqual(guessed["choices"], plain["choices"])
        self.assertGreater(served.metric("vllm:spec_decode_num_accepted_tokens_total"), 0)

    def test_refuses_a_draft_model_of_other_tokens(self):
        other = tiny_model.make(pathlib.Path(self.folder.name) / "other")
        text = (other / "tokenizer.json").read_text().replace("<|im_start|>", "<|other|>")
        (other / "tokenizer.json").write_text(text)
        (other / "tokenizer_config.json").write_text("{}")
        outcome = quern("serve", self.model, "--draft-model", other, "--port", "0", "--quiet")
        self.assertEqual(outcome.status, 2, outcome)
        self.assertIn("token 256 is another", outcome.err)
        outcome = quern("serve", self.model, other, "--draft-model", other, "--port", "0")
        self.assertIn("--draft-model goes with one model", outcome.err)

    def test_serves_several_models(self):
        second = tiny_model.make(pathlib.Path(self.folder.name) / "second", seed=2)
        served = self.serve(second, "--kv-cache", "4MiB", "--context", "256")
        answers = {}
        for name in ("tiny", "second"):
            response, body = served.call("POST", "/v1/chat/completions", chat(model=name))
            self.assertEqual(response.status, 200, body)
            answers[name] = json.loads(body)["choices"][0]["message"]["content"]
        self.assertNotEqual(answers["tiny"], answers["second"])

    def test_loads_and_unloads_while_another_model_streams(self):
        second = tiny_model.make(pathlib.Path(self.folder.name) / "second", seed=2)
        body = chat(stream=True, max_tokens=1500, ignore_eos=True)
        expected = deltas(self.serve().call("POST", "/v1/chat/completions", body)[1])
        self.assertGreater(len(expected), 1000)
        of_second = self.serve(model=second).call("POST", "/v1/chat/completions",
                                                  chat(model="second"))[1]
        served = self.serve()
        connection = served.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps(body),
                           {"Content-Type": "application/json"})
        stream = connection.getresponse()
        first = stream.readline().decode()
        load = {"model": str(second), "kv_cache_bytes": 4 << 20, "context": 256}
        response, loaded = served.call("POST", "/admin/models/load", load)
        self.assertEqual(response.status, 200, loaded)
        self.assertEqual(json.loads(loaded)["context"], 256)
        self.assertEqual(served.call("POST", "/admin/models/load", load)[0].status, 409)
        _, models = served.call("GET", "/v1/models")
        self.assertEqual([m["id"] for m in json.loads(models)["data"]], ["tiny", "second"])
        _, answer = served.call("POST", "/v1/chat/completions", chat(model="second"))
        self.assertEqual(json.loads(answer)["choices"][0]["message"],
                         json.loads(of_second)["choices"][0]["message"])
        self.assertIn('model_name="second"', served.call("GET", "/metrics")[1])
        response, unloaded = served.call("POST", "/admin/models/unload", {"model": "second"})
        self.assertEqual(json.loads(unloaded), {"id": "second", "cancelled_calls": 0})
        self.assertEqual(served.call("POST", "/v1/chat/completions", chat(model="second"))[0].status,
                         404)
        self.assertNotIn('model_name="second"', served.call("GET", "/metrics")[1])
        self.assertEqual(deltas(first + stream.read().decode()), expected)
        connection.close()

    def test_says_why_a_model_is_not_loaded(self):
        served = self.serve()
        broken = pathlib.Path(self.folder.name) / "broken.gguf"
        broken.write_text("no model")
        for load, status in (({"model": "/nowhere"}, 404), ({"model": str(broken)}, 400),
                             ({"model": str(self.model), "id": "b", "context": 1 << 20}, 400),
                             ({"model": str(self.model), "id": "b", "kv_cache_bytes": 1 << 45}, 507),
                             ({"model": str(self.model), "kv_cache_bytes": 4 << 20}, 409)):
            response, body = served.call("POST", "/admin/models/load", load)
            self.assertEqual(response.status, status, body)
            self.assertIn("error", json.loads(body))
        self.assertEqual(served.call("POST", "/admin/models/unload", {"model": "b"})[0].status, 404)
        self.assertEqual(served.call("POST", "/v1/chat/completions", chat())[0].status, 200)

    def test_lets_admins_alone_load(self):
        keys = pathlib.Path(self.folder.name) / "keys"
        keys.write_text(f"alice {KEY}\nroot root-{KEY} admin\n")
        served = self.serve("--api-keys", keys)
        for key, status in ((KEY, 403), ("root-" + KEY, 404)):
            response, _ = served.call("POST", "/admin/models/load", {"model": "/nowhere"},
                                      {"Authorization": "Bearer " + key})
            self.assertEqual(response.status, status)

    def test_serves_its_page(self):
        served = self.serve()
        response, page = served.call("GET", "/")
        self.assertEqual(response.status, 200)
        self.assertIn("default-src 'none'", response.getheader("content-security-policy"))
        self.assertNotIn("http://", page.replace("http://www.w3.org", ""))
        for path in ("/playground.js", "/playground.css", "/icon.svg"):
            self.assertEqual(served.call("GET", path)[0].status, 200)

    def test_speaks_tls(self):
        folder = pathlib.Path(self.folder.name)
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=localhost", "-days", "1", "-keyout", folder / "tls.key",
             "-out", folder / "tls.crt"], capture_output=True)
        if made.returncode != 0:
            self.skipTest("no openssl program")
        served = self.serve("--tls-cert", folder / "tls.crt", "--tls-key", folder / "tls.key")
        context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", served.port, timeout=TIMEOUT_S,
                                                 context=context)
        for _ in range(2):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat()),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            self.assertEqual(response.status, 200, response.read())
            response.read()
        connection.close()


def serve_with_files(count, *flags):
    """Of a process that may open `count` files, and a model that is not there."""
    return quern("serve", "/nowhere", *flags, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count)))


class BadCommandLines(unittest.TestCase):
    def refuse(self, *arguments):
        outcome = quern("serve", "/nowhere", *arguments)
        self.assertNotEqual(outcome.status, 0)
        self.assertEqual(outcome.out, "")
        return outcome.err

    def test_other_addresses_need_keys_and_tls(self):
        self.assertIn("--insecure", self.refuse("--host", "0.0.0.0"))

    def test_tls_needs_both_files(self):
        self.assertIn("--tls-key", self.refuse("--tls-cert", "x"))

    def test_names_what_is_missing(self):
        self.assertIn("/nowhere/keys", self.refuse("--api-keys", "/nowhere/keys"))
        self.assertIn("2 times for 1", self.refuse(
            "--served-model-name", "a", "--served-model-name", "b"))
        self.assertIn("/nowhere", self.refuse())

    def test_knows_how_many_files_it_may_open(self):
        self.assertIn("ulimit", self.refuse("--max-connections", "1000000"))

    def test_advises_nothing_impossible_where_hardly_a_file_may_be_opened(self):
        done = serve_with_files(64)
        self.assertEqual(done.status, 2, done)
        self.assertIn("raise `ulimit -n`", done.err)
        self.assertNotIn("give at most", done.err)

    def test_takes_as_many_connections_as_it_may_open_files(self):
        done = serve_with_files(256)
        self.assertEqual(done.status, 3, done)
        self.assertIn("note: 192 connections at once", done.err)
        self.assertIn("/nowhere", done.err)
        self.assertIn("give at most 192", serve_with_files(256, "--max-connections", "500").err)


if __name__ == "__main__":
    unittest.main()
