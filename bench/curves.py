#!/usr/bin/env python3
"""Measures how speed changes with the batch and with the context, and draws it beside the machine's limits.

Usage: bench/curves.py MODEL --output FILE.svg [--threads 2] [--title TEXT]

Three panels: tokens per second of all sequences against the batch (behind prompts of --prompt tokens), of one
sequence against the length of what it has read, and of reading a prompt against its length. Dashed: what
`quern bench` computes from the bandwidth and the products per second that it measures in the same run. The numbers
go to standard output as JSON.
"""

import argparse
import html
import json
import math
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, MARGIN = 300, 220, 56


def bench(arguments, prefill, batches):
    command = [arguments.quern, "bench", arguments.model, "--json", "-q", "--threads", arguments.threads,
               "--prefill", prefill, "--decode", arguments.decode, "--repeat", arguments.repeat,
               "--batch", ",".join(map(str, batches))]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"quern bench ended with {done.returncode} at prompts of {prefill}: nothing was drawn")
    print(f"prompts of {prefill}, batches {batches}: done", file=sys.stderr)
    report = json.loads(done.stdout)
    return report["results"], report["limits"]["int8_gops"]


def round_up(value):
    step = 10 ** math.floor(math.log10(value))
    return next(step * m for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * m >= value)


class Panel:
    """One chart: x in powers of two, y from zero."""

    def __init__(self, left, title, x_label, xs, series):
        self.left, self.title, self.x_label, self.xs, self.series = left, title, x_label, xs, series
        # The limits may lie far above: they leave the picture rather than flatten it.
        self.top = round_up(1.6 * max(series[0][1]))

    def x(self, value):
        low, high = math.log2(self.xs[0]), math.log2(self.xs[-1])
        return self.left + MARGIN + (math.log2(value) - low) / (high - low) * WIDTH

    def y(self, value):
        return MARGIN + HEIGHT * (1 - value / self.top)

    def line(self, values, style):
        points = [(self.x(x), self.y(v)) for x, v in zip(self.xs, values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        clip = f'clip-path="url(#panel{self.left})"'
        drawn = f'<polyline points="{path}" fill="none" {style} {clip}/>'
        if "dash" in style:
            return drawn
        return drawn + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f6feb"/>' for x, y in points)

    def svg(self):
        left, bottom = self.left + MARGIN, MARGIN + HEIGHT
        out = [f'<clipPath id="panel{self.left}"><rect x="{left}" y="{MARGIN}" width="{WIDTH}" height="{HEIGHT}"/>'
               "</clipPath>",
               f'<text x="{left}" y="{MARGIN - 14}" font-weight="bold">{html.escape(self.title)}</text>',
               f'<text x="{left + WIDTH / 2}" y="{bottom + 36}" text-anchor="middle">{html.escape(self.x_label)}</text>']
        for share in range(5):
            value = self.top * share / 4
            y = self.y(value)
            out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + WIDTH}" y2="{y:.1f}" stroke="#ddd"/>'
                       f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
        for value in self.xs:
            label = f"{value // 1024}k" if value >= 1024 else value
            out.append(f'<text x="{self.x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
        measured, limit = self.series
        out.append(self.line(limit[1], 'stroke="#999" stroke-width="1.5" stroke-dasharray="5 4"'))
        out.append(self.line(measured[1], 'stroke="#1f6feb" stroke-width="2"'))
        return "\n".join(out)


def draw(title, panels):
    width = len(panels) * (WIDTH + MARGIN + 24) + 24
    height = HEIGHT + 2 * MARGIN + 30
    body = "\n".join(panel.svg() for panel in panels)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
            f'<text x="{MARGIN}" y="22" font-size="15">{html.escape(title)}</text>\n{body}\n'
            f'<text x="{MARGIN}" y="{height - 8}" fill="#666">Points: measured. Dashed: the machine\'s limit.</text>\n</svg>\n')


def series(rows, figure):
    return [("measured", [row[f"{figure}_tokens_per_second"] for row in rows]),
            ("limit", [row[f"{figure}_limit_tokens_per_second"] for row in rows])]


def powers(first, last):
    return [2 ** i for i in range(int(math.log2(first)), int(math.log2(last)) + 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--title")
    parser.add_argument("--quern", default=ROOT / "build/release/quern")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--largest-batch", type=int, default=64)
    parser.add_argument("--largest-context", type=int, default=8192, help="context and answer must fit the model")
    arguments = parser.parse_args()

    batches = powers(1, arguments.largest_batch)
    contexts = powers(128, arguments.largest_context)
    by_batch, _ = bench(arguments, arguments.prompt, batches)
    # The last context leaves room for the answer and what `quern bench` runs before it.
    lengths = [min(c, arguments.largest_context - 2 * arguments.decode) for c in contexts]
    runs = [bench(arguments, length, [1]) for length in lengths]
    by_context = [rows[0] for rows, _ in runs]
    # Every run measures the peak that limits prefill; neighbours on the machine can only lower it.
    peak = max(peak for _, peak in runs)
    for row, (_, measured) in zip(by_context, runs):
        row["prefill_limit_tokens_per_second"] *= peak / measured
    json.dump({"batch": by_batch, "context": by_context}, sys.stdout, indent=1)
    print()

    step = WIDTH + MARGIN + 24
    panels = [
        Panel(0, "Decode, tokens/s of all sequences", f"sequences, prompts of {arguments.prompt}", batches,
              series(by_batch, "decode")),
        Panel(step, "Decode, tokens/s of one sequence", "tokens of context", contexts, series(by_context, "decode")),
        Panel(2 * step, "Prefill, tokens/s", "tokens of the prompt", contexts, series(by_context, "prefill")),
    ]
    arguments.output.write_text(draw(arguments.title or f"{pathlib.Path(arguments.model).name}, "
                                     f"{arguments.threads} threads", panels))


if __name__ == "__main__":
    main()
