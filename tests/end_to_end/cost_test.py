"""`quern cost`: the published margins, and no figure without its assumptions."""

import json
import pathlib
import tempfile
import unittest

from quern import quern


def cost(*arguments):
    return quern("cost", "--json", *arguments)


H200 = ("--hardware-usd-per-hour", "5.616", "--output-usd-per-million", "2.00")


class CostTest(unittest.TestCase):
    def test_gives_the_published_margins(self):
        for rate, margin, profit in ((1200, 0.35, 3.024), (1500, 0.48, 5.184)):
            report = cost("--tokens-per-second", rate, *H200).json()
            self.assertAlmostEqual(report["gross_margin"], margin, places=9)
            self.assertAlmostEqual(report["profit_usd_per_hour"], profit, places=9)
        self.assertAlmostEqual(report["tokens_per_second_per_usd_hour"], 267.094, places=3)
        self.assertAlmostEqual(report["cost_usd_per_million_output_tokens"], 1.04, places=9)
        self.assertAlmostEqual(report["break_even_usd_per_million"], 1.04, places=9)

    def test_the_table_shows_them_with_the_assumptions(self):
        done = quern("cost", "--tokens-per-second", 1200, *H200)
        self.assertIn("35.00%", done.out)
        self.assertIn("not measured", done.out)
        self.assertIn("not comparable", done.out)

    def test_takes_rates_and_lengths_from_a_bench_report(self):
        report = {
            "results": [
                {"batch": 1, "prefill_tokens": 512, "decode_tokens": 128,
                 "prefill_tokens_per_second": 5000, "decode_tokens_per_second": 100},
                {"batch": 32, "prefill_tokens": 512, "decode_tokens": 128,
                 "prefill_tokens_per_second": 5000, "decode_tokens_per_second": 1000},
            ],
            "disclosure": {"model": "m", "precision": "int4", "hardware": "a machine",
                           "input_tokens": "512", "output_tokens": "128",
                           "throughput_basis": "measured"},
        }
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "bench.json"
            path.write_text(json.dumps(report))
            common = ("--bench", path, "--hardware-usd-per-hour", 0.1,
                      "--output-usd-per-million", 0.5, "--input-usd-per-million", 0.05)
            last = cost(*common).json()
            self.assertEqual(last["disclosure"]["batch"], "32")
            # 128 / 1000 s of decoding and 512 / 5000 s of prefill for each request.
            busy = 0.128 + 0.1024
            self.assertAlmostEqual(last["output_tokens_per_hour"], 3600 * 128 / busy, places=3)
            first = cost(*common, "--batch", 1).json()
            self.assertLess(last["cost_usd_per_million_output_tokens"],
                            first["cost_usd_per_million_output_tokens"])
            self.assertEqual(cost(*common, "--batch", 7).status, 3)
            del report["disclosure"]["precision"]
            path.write_text(json.dumps(report))
            done = cost(*common)
            self.assertEqual(done.status, 2)
            self.assertIn("precision", done.err)
            path.write_text("{]")
            self.assertEqual(cost(*common).status, 2)

    def test_refuses_what_makes_no_sense(self):
        for arguments in (
            H200,
            ("--tokens-per-second", 100, "--output-usd-per-million", 2),
            ("--tokens-per-second", -5, *H200),
            ("--tokens-per-second", "nan", *H200),
            ("--tokens-per-second", 100, *H200, "--utilization", 1.5),
            ("--tokens-per-second", 100, *H200, "--input-usd-per-million", 1),
            ("--tokens-per-second", 100, *H200, "--no-such-flag"),
        ):
            done = cost(*arguments)
            self.assertEqual(done.status, 2, (arguments, done))
            self.assertTrue(done.err.strip(), arguments)


if __name__ == "__main__":
    unittest.main()
