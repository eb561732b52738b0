"""Runs the quern program for tests."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("QUERN_BINARY", str(ROOT / "build/release/quern"))
GOLDEN = ROOT / "tests/golden/model"


class Outcome:
    def __init__(self, done):
        self.status = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"status {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def quern(*arguments, env=None, input=None, timeout=300, preexec=None):
    """Runs `quern ARGUMENTS`; never raises for a failing command."""
    done = subprocess.run(
        [BINARY, *map(str, arguments)],
        env={**os.environ, **(env or {})},
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=preexec,
    )
    return Outcome(done)
