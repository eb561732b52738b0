"""`quern pull hf:ORG/NAME` against a stand-in hub on this machine."""

import hashlib
import http.server
import json
import pathlib
import tempfile
import threading
import unittest

from quern import quern

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"not wanted",
    "../escape.json": b"{}",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves FILES as ORG/NAME; behaviours are switched by the server's attributes."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, dict(self.headers)))
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            return self.send(401, b"unauthorised")
        path = self.path.split("?")[0]
        if path == "/api/models/org/name/revision/main":
            return self.send(200, json.dumps({"siblings": self.siblings()}).encode())
        name = path.removeprefix("/org/name/resolve/main/")
        if name == path or name not in FILES:
            return self.send(404, b"no such file")
        if server.redirect_to and name == "model.safetensors":
            return self.send(302, b"", [("Location", f"{server.redirect_to}{path}")])
        return self.send_file(name)

    def siblings(self):
        listing = []
        for name, content in FILES.items():
            entry = {"rfilename": name, "size": len(content)}
            if name.endswith(".safetensors"):
                digest = self.server.digest or hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content)}
            listing.append(entry)
        return listing

    def send_file(self, name):
        server = self.server
        body = FILES[name]
        asked = self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").split("-")[0]) if asked and server.ranges else 0
        part = body[begin:]
        if server.break_after and len(part) > server.break_after:
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: server.break_after])
            self.wfile.flush()
            self.close_connection = True
            return self.connection.shutdown(2)
        headers = [("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")] if begin else []
        self.send(206 if begin else 200, part, headers)


class PullTest(unittest.TestCase):
    def setUp(self):
        self.server = self.serve()
        self.folder = tempfile.TemporaryDirectory()
        self.store = pathlib.Path(self.folder.name)

    def serve(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        server.daemon_threads = True
        server.seen, server.token, server.redirect_to = [], None, None
        server.break_after, server.ranges, server.digest = None, True, None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server

    def url(self, server):
        return f"http://127.0.0.1:{server.server_address[1]}"

    def pull(self, **env):
        return quern("pull", "hf:org/name", "--json", "-q",
                     env={"HF_ENDPOINT": self.url(self.server), "QUERN_MODELS": str(self.store), "HF_TOKEN": "", **env})

    def tearDown(self):
        self.folder.cleanup()

    def stored(self):
        return sorted(p.name for p in (self.store / "org/name").glob("*"))

    def test_fetches_what_a_model_needs_and_nothing_else(self):
        done = self.pull()
        self.assertEqual(done.status, 0, done)
        self.assertEqual(self.stored(), ["config.json", "model.safetensors"])
        self.assertEqual((self.store / "org/name/model.safetensors").read_bytes(), WEIGHTS)
        report = done.json()
        self.assertEqual(report["bytes"], len(WEIGHTS) + len(FILES["config.json"]))
        self.assertEqual(report["path"], str(self.store / "org/name"))
        lines = "".join(f"{hashlib.sha256(FILES[n]).hexdigest()}  {n}\n" for n in self.stored())
        self.assertEqual(report["sha256"], hashlib.sha256(lines.encode()).hexdigest())
        self.assertFalse((self.store / "org/escape.json").exists())

    def test_continues_where_a_broken_connection_left_off(self):
        self.server.break_after = 300_000
        done = self.pull()
        self.assertEqual(done.status, 0, done)
        self.assertEqual((self.store / "org/name/model.safetensors").read_bytes(), WEIGHTS)
        ranges = [h.get("Range") for p, h in self.server.seen if p.endswith("model.safetensors")]
        self.assertEqual(ranges, [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"])

    def test_takes_up_a_partial_file_of_an_earlier_run(self):
        target = self.store / "org/name"
        target.mkdir(parents=True)
        (target / "model.safetensors.part").write_bytes(WEIGHTS[:1000])
        self.assertEqual(self.pull().status, 0)
        self.assertEqual((target / "model.safetensors").read_bytes(), WEIGHTS)
        self.assertIn("bytes=1000-", [h.get("Range") for _, h in self.server.seen])

    def test_starts_again_when_the_server_knows_no_ranges(self):
        target = self.store / "org/name"
        target.mkdir(parents=True)
        (target / "model.safetensors.part").write_bytes(b"x" * 1000)
        self.server.ranges = False
        self.assertEqual(self.pull().status, 0)
        self.assertEqual((target / "model.safetensors").read_bytes(), WEIGHTS)

    def test_keeps_nothing_whose_checksum_is_wrong(self):
        self.server.digest = "0" * 64
        done = self.pull()
        self.assertEqual(done.status, 5, done)
        self.assertIn("SHA-256", done.err)
        self.assertEqual(self.stored(), ["config.json"])

    def test_sends_the_token_to_the_hub_alone(self):
        elsewhere = self.serve()
        self.server.token = "secret"
        self.server.redirect_to = f"http://localhost:{elsewhere.server_address[1]}"
        done = self.pull(HF_TOKEN="secret")
        self.assertEqual(done.status, 0, done)
        self.assertTrue(elsewhere.seen)
        self.assertTrue(all("Authorization" not in headers for _, headers in elsewhere.seen))

    def test_says_what_is_missing(self):
        self.server.token = "secret"
        done = self.pull()
        self.assertEqual(done.status, 7, done)
        self.assertIn("HF_TOKEN", done.err)
        done = quern("pull", "hf:org/other", env={"HF_ENDPOINT": self.url(self.server), "QUERN_MODELS": str(self.store), "HF_TOKEN": "secret"})
        self.assertEqual(done.status, 3, done)

    def test_refuses_names_that_are_no_repositories(self):
        for name in ["hf:../x/y", "hf:org", "hf:org/name/x", "nonsense"]:
            done = quern("pull", name, env={"QUERN_MODELS": str(self.store)})
            self.assertIn(done.status, (2, 3), done)
            self.assertIn(name, done.err)

    def test_an_unreachable_hub_is_an_error_of_the_world(self):
        done = quern("pull", "hf:org/name",
                     env={"HF_ENDPOINT": "http://127.0.0.1:9", "QUERN_MODELS": str(self.store)})
        self.assertEqual(done.status, 10, done)


if __name__ == "__main__":
    unittest.main()
