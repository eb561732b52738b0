"""Starts one `quern serve` for the whole suite: on the model of $QUERN_TEST_MODEL, else on a tiny
random one whose template knows of tools."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/end_to_end"))
import tiny_model  # noqa: E402

BINARY = os.environ.get("QUERN_BINARY", str(ROOT / "build/release/quern"))

TEMPLATE = (
    "{%- if tools %}{{ '<|im_start|>system\\n<tools>' }}{% for tool in tools %}{{ tool | tojson }}"
    "{% endfor %}{{ '</tools> <tool_call></tool_call><|im_end|>\\n' }}{% endif %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{%- for call in m.tool_calls %}{{ '<tool_call>' }}{{ call.function | tojson }}"
    "{{ '</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


class Server:
    def __init__(self, model, log):
        self.model = "served"
        self.process = subprocess.Popen(
            [BINARY, "serve", model, "--served-model-name", self.model, "--port", "0", "--json"],
            stdout=subprocess.PIPE, stderr=log, text=True)
        text = ""
        while True:
            line = self.process.stdout.readline()
            assert line, "the server did not start; see " + log.name
            text += line
            try:
                self.url = json.loads(text)["url"]
                break
            except json.JSONDecodeError:
                continue


def make_tiny_model(directory):
    path = tiny_model.make(directory)
    (path / "tokenizer_config.json").write_text(json.dumps(
        {"chat_template": TEMPLATE, "eos_token": "<|im_end|>"}))
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    model = os.environ.get("QUERN_TEST_MODEL") or make_tiny_model(folder / "tiny")
    with open(folder / "log", "w") as log:
        running = Server(str(model), log)
    yield running
    running.process.terminate()
    assert running.process.wait(timeout=60) == 0, "the server did not end as it should"
