#!/usr/bin/env python3
"""Measures `quern serve` under load, with `quern load` as the client.

  bench/serving.py peers MODEL.gguf [--quern-model DIR]   beside llama-server at 1, 8 and 32 clients
  bench/serving.py bench MODEL        throughput at 32 clients beside `quern bench` (no HTTP)
  bench/serving.py prefix MODEL       time to first token with a cached prefix of 1,024 tokens
  bench/serving.py overload MODEL     goodput and refusals at ten times the load that it can carry
  bench/serving.py disconnects MODEL  22,000 clients, of which 20,000 and more leave
  bench/serving.py hostile MODEL      5,000 hostile bodies beside 100 good streams
  bench/serving.py soak MODEL         1,000 streams at once for ten minutes
  bench/serving.py connections MODEL  10,000 idle connections, and a client served beside them
  bench/serving.py draft MODEL --draft-model SMALLER   decoding with a draft model beside without

Each prints one table row or more, and the commands' own JSON with --json FILE. Client and server
share the machine, as they would not in use.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

from llama_cpp import ROOT, SETTINGS, build, requantise

RESULTS = []


def log(text):
    print(text, file=sys.stderr, flush=True)


def wait_until_ready(url, process):
    host = url.removeprefix("http://")
    while True:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        try:
            connection = http.client.HTTPConnection(host, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)


@contextlib.contextmanager
def server(*command, url):
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def quern_server(arguments, model, *flags):
    port = free_port()
    return server(arguments.quern, "serve", model, "--port", port, "--threads", arguments.threads, "--log", "none",
                  *flags, url=f"http://127.0.0.1:{port}")


def load(arguments, url, *flags, statuses=(0,)):
    done = subprocess.run([str(arguments.quern), "load", url, "--json", "-q", *map(str, flags)],
                          capture_output=True, text=True)
    if done.returncode not in statuses:
        raise SystemExit(f"quern load {url} {flags}: {done.returncode} {done.stderr} {done.stdout}")
    result = json.loads(done.stdout)
    RESULTS.append(result)
    return result


def metric(url, name):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith(name + "{") or line.startswith(name + " "))


def fixed(clients, tokens, requests):
    return ("--concurrency", clients, "--requests", requests, "--warmup", min(clients, 4),
            "--input-tokens", 128, "--output-tokens", tokens, "--ignore-eos", "--temperature", 0)


def peers(arguments):
    programs = build("llama-server", "llama-quantize")
    peer_model = requantise(programs, pathlib.Path(arguments.model))
    ours, theirs = {}, {}
    for number in range(arguments.rounds):
        for clients in (1, 8, 32):
            log(f"round {number + 1}, {clients} clients")
            run = fixed(clients, arguments.output_tokens, max(4, clients))
            settings = []
            for setting in SETTINGS:
                port = free_port()
                with server(programs / "llama-server", "-m", peer_model, "--port", port, "--host", "127.0.0.1",
                            "-c", clients * 512, "-np", clients, "-t", arguments.threads, "-tb", arguments.threads,
                            *setting, "--no-webui", url=f"http://127.0.0.1:{port}") as url:
                    settings.append(load(arguments, url, *run))
            theirs.setdefault(clients, []).append(settings)
            with quern_server(arguments, arguments.quern_model or arguments.model, "--max-sequences", 32) as url:
                ours.setdefault(clients, []).append(load(arguments, url, *run))
    print(f"{'clients':>7} {'':14} {'quern':>9} {'llama-server':>12}  ratio (median of rounds)")
    for clients in ours:
        for name, read in (("tokens/s", lambda r: r["output_tokens_per_second"]),
                           ("TTFT ms (p50)", lambda r: r["ttft_ms"]["median"]),
                           ("TPOT ms (p50)", lambda r: r["tpot_ms"]["median"])):
            best = max if name == "tokens/s" else min
            mine = [read(r) for r in ours[clients]]
            peer = [best(map(read, settings)) for settings in theirs[clients]]
            ratio = statistics.median(a / b for a, b in zip(mine, peer))
            print(f"{clients:>7} {name:14} {best(mine):>9.1f} {best(peer):>12.1f}  {ratio:.2f}")


def bench(arguments):
    clients, prompt, tokens = 32, 128, arguments.output_tokens
    alone, served = [], []
    for number in range(arguments.rounds):
        log(f"round {number + 1}")
        done = subprocess.run([str(arguments.quern), "bench", arguments.model, "--json", "-q", "--batch", str(clients),
                               "--prefill", str(prompt), "--decode", str(tokens), "--repeat", "1", "--threads",
                               str(arguments.threads)], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)["results"][0]
        seconds = (clients * prompt / row["prefill_tokens_per_second"] +
                   clients * tokens / row["decode_tokens_per_second"])
        alone.append(clients * tokens / seconds)
        with quern_server(arguments, arguments.model, "--max-sequences", clients) as url:
            run = load(arguments, url, "--rate", "inf", "--requests", clients, "--warmup", 1, "--input-tokens", prompt,
                       "--output-tokens", tokens, "--ignore-eos", "--temperature", 0)
            served.append(run["output_tokens_per_second"])
    share = statistics.median(a / b for a, b in zip(served, alone))
    print(f"output tokens/s of 32 requests at once: bench {max(alone):.0f}, served {max(served):.0f}, "
          f"share {share:.1%} (median of {arguments.rounds} rounds)")


def prefix(arguments):
    with quern_server(arguments, arguments.model) as url:
        common = ("--concurrency", 1, "--requests", 10, "--warmup", 1, "--output-tokens", 4, "--ignore-eos")
        cold = load(arguments, url, *common, "--input-tokens", 1056, "--seed", 1)
        warm = load(arguments, url, *common, "--input-tokens", 32, "--prefix-tokens", 1024, "--seed", 2)
    a, b = cold["ttft_ms"]["median"], warm["ttft_ms"]["median"]
    print(f"TTFT of a prompt of 1,056 tokens: {a:.1f} ms, with its first 1,024 cached {b:.1f} ms: {a / b:.1f} times less")


def overload(arguments):
    shape = ("--input-tokens", 64, "--output-tokens", 32, "--ignore-eos", "--slo", "ttft=10s")
    flags = ("--max-sequences", 32, "--max-queued", 64, "--queue-seconds", 5)
    with quern_server(arguments, arguments.model, *flags) as url:
        peak = load(arguments, url, "--concurrency", 64, "--requests", 1500, "--warmup", 32, *shape)
        rate = peak["requests_per_second"]
        over = load(arguments, url, "--rate", 10 * rate, "--duration", arguments.seconds, *shape, statuses=(0, 5))
    good, most = over["goodput"]["requests_per_second"], peak["goodput"]["requests_per_second"]
    refusal = over["refusal_ms"]
    print(f"peak goodput {most:.1f} requests/s; at 10 times that load {good:.1f} ({good / most:.1%}); "
          f"{over['requests']['refused']} refused (median {refusal['median']:.1f} ms, p99 {refusal['p99']:.1f} ms), "
          f"{over['requests']['failed']} failed")


def idle(url):
    for _ in range(100):
        left = {name: metric(url, f"vllm:{name}")
                for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")}
        if not any(left.values()):
            break
        time.sleep(0.1)
    return left


def disconnects(arguments):
    with quern_server(arguments, arguments.model, "--max-queued", 4096) as url:
        run = load(arguments, url, "--concurrency", 256, "--requests", 22000, "--input-tokens", "uniform(4,48)",
                   "--output-tokens", "uniform(4,48)", "--disconnect-fraction", 1, "--ignore-eos")
        print(f"{run['requests']['disconnected']} clients left in {run['duration_seconds']:.0f} s, "
              f"{run['requests']['failed']} failed; afterwards: {idle(url)}")


def stream(url, seed):
    body = {"model": "model", "messages": [{"role": "user", "content": f"Tell me about number {seed}."}], "stream": True,
            "max_tokens": 48, "temperature": 0.8, "seed": seed, "logprobs": True}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        return [text]
    frames = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    return [frame["choices"] for frame in frames if frame["choices"]]


def hostile(arguments):
    with quern_server(arguments, arguments.model, "--served-model-name", "model") as url:
        alone = [stream(url, seed) for seed in range(100)]
        answers = [None] * 100

        def ask(seed):
            time.sleep(random.Random(seed).uniform(0, 5))
            answers[seed] = stream(url, seed)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(100)]
        for thread in threads:
            thread.start()
        run = load(arguments, url, "--rate", 500, "--requests", 5000, "--hostile-fraction", 1, "--model", "model")
        for thread in threads:
            thread.join()
        same = sum(a == b for a, b in zip(alone, answers))
        print(f"{run['requests']['hostile_rebuffed']} hostile bodies rebuffed, {run['requests']['failed']} not; {same} of "
              f"100 good streams as alone, logprobs included; afterwards: {idle(url)}")


def soak(arguments):
    with quern_server(arguments, arguments.model, "--max-queued", 2048, "--queue-seconds", 600) as url:
        run = load(arguments, url, "--concurrency", 1000, "--duration", arguments.seconds, "--input-tokens",
                   "uniform(16,200)", "--output-tokens", "uniform(8,64)", "--ignore-eos", "--check-usage",
                   "--timeout", 600)
        requests = run["requests"]
        print(f"{run['concurrency_max']} streams at once for {run['duration_seconds']:.0f} s: {requests['ok']} ok, "
              f"{requests['failed']} failed, {requests['refused']} refused, {run['output_tokens_per_second']:.0f} tokens/s, "
              f"usage wrong {sum(p['count'] for p in run['usage']['problems'])}; afterwards: {idle(url)}")


def answers(sockets):
    """How many of the connections answer a request, all asked before the first is read."""
    for client in sockets:
        client.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    right = 0
    for client in sockets:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                break
            head += piece
        right += head.startswith(b"HTTP/1.1 200 ")
    return right


def connections(arguments):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = arguments.connections
    run = ("--concurrency", 1, "--requests", 8, "--warmup", 1, "--input-tokens", 32, "--output-tokens", 64,
           "--ignore-eos", "--temperature", 0)
    with quern_server(arguments, arguments.model, "--max-connections", count + 64) as url:
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        alone = load(arguments, url, *run)
        sockets = [socket.create_connection(address, timeout=60) for _ in range(count)]
        first = answers(sockets)
        beside = load(arguments, url, *run)
        still = answers(sockets)
        open_now = metric(url, "quern:http_connections")
        print(f"{count} connections: {first} answered, {still} again after a run beside them, {open_now:.0f} open; "
              f"ms a token alone {alone['tpot_ms']['median']:.3f}, beside them {beside['tpot_ms']['median']:.3f}; "
              f"TTFT {alone['ttft_ms']['median']:.2f} and {beside['ttft_ms']['median']:.2f} ms")
        for client in sockets:
            client.close()


def draft(arguments):
    plain, guessed, share = [], [], 0
    for number in range(arguments.rounds):
        log(f"round {number + 1}")
        run = ("--concurrency", 1, "--requests", 4, "--warmup", 1, "--input-tokens", 64, "--output-tokens", 128,
               "--ignore-eos", "--temperature", 0)
        with quern_server(arguments, arguments.model, "--precision", arguments.precision) as url:
            plain.append(load(arguments, url, *run)["tpot_ms"]["median"])
        with quern_server(arguments, arguments.model, "--precision", arguments.precision, "--draft-model",
                          arguments.draft_model) as url:
            guessed.append(load(arguments, url, *run)["tpot_ms"]["median"])
            share = (metric(url, "vllm:spec_decode_num_accepted_tokens_total") /
                     max(metric(url, "vllm:spec_decode_num_draft_tokens_total"), 1))
    ratio = statistics.median(a / b for a, b in zip(plain, guessed))
    print(f"ms a token: {min(plain):.2f}, with the draft model {min(guessed):.2f}: {ratio:.2f} times as fast, "
          f"{share:.0%} of the guesses right")


def main():
    commands = {f.__name__: f for f in (peers, bench, prefix, overload, disconnects, hostile, soak, connections, draft)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=commands)
    parser.add_argument("model")
    parser.add_argument("--quern-model", help="what Quern serves beside llama-server")
    parser.add_argument("--draft-model")
    parser.add_argument("--precision", default="fast")
    parser.add_argument("--quern", default=ROOT / "build/release/quern")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--seconds", type=int, help="of overload (60) or soak (600)")
    parser.add_argument("--connections", type=int, default=10000, help="idle ones")
    parser.add_argument("--json", type=pathlib.Path, help="file for the reports of every run")
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (600 if arguments.command == "soak" else 60)
    commands[arguments.command](arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(RESULTS, indent=1))


if __name__ == "__main__":
    main()
