#!/usr/bin/env python3
"""Asks `quern serve` for answers in many random JSON schemas and checks each with another validator.

Usage: bench/json_schema.py MODEL [--schemas 500] [--max-tokens 1500] [--seed 1]   (needs the Python package jsonschema)

The schemas nest objects, arrays, unions, references, enumerations, patterns, formats, bounds and optional
members. Reported: answers that are valid, those of them that the limit of --max-tokens made shorter, schemas
refused by name, and what masks cost: a step's time with the same prompts free and bound to a schema.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import random
import re
import statistics

import jsonschema

from serving import load, quern_server


class Schemas:
    def __init__(self, seed):
        self.dice = random.Random(seed)

    def name(self):
        return self.dice.choice(["id", "name", "kind", "grain", "weight_kg", "stone", "is_wet", "größe", "a b", "tags"])

    def string(self):
        kind = self.dice.randrange(6)
        if kind == 0:
            return {"type": "string", "enum": self.dice.sample(["rye", "oats", "wheat", "\"quoted\"", "größer", ""], 3)}
        if kind == 1:
            return {"type": "string", "pattern": self.dice.choice(
                ["^[A-Z]{2}-[0-9]{3}$", "^(red|green|blue)+$", "^[^x]{1,8}$", "^\\d{4}-\\d{2}$", "^[a-f0-9]{8}$"])}
        if kind == 2:
            return {"type": "string", "format": self.dice.choice(["date", "uuid", "time", "date-time", "ipv4"])}
        least = self.dice.randrange(4)
        return {"type": "string", "minLength": least, "maxLength": least + self.dice.randrange(1, 20)}

    def number(self):
        kind = self.dice.choice(["integer", "number"])
        out = {"type": kind}
        if self.dice.random() < 0.8:
            out["minimum"] = self.dice.randrange(-1000, 1000)
        if self.dice.random() < 0.8:
            out["maximum"] = out.get("minimum", 0) + self.dice.randrange(0, 5000)
        return out

    def leaf(self):
        return self.dice.choice([self.string, self.string, self.number, lambda: {"type": "boolean"},
                                 lambda: {"type": "null"}, lambda: {"const": self.dice.choice([1, "x", None, True])},
                                 lambda: {"enum": [1, "two", None, [3], {"four": 4}]}])()

    def array(self, depth):
        least = self.dice.randrange(3)
        out = {"type": "array", "items": self.value(depth - 1), "minItems": least,
               "maxItems": least + self.dice.randrange(3)}
        if self.dice.random() < 0.2:
            out = {"type": "array", "prefixItems": [self.value(depth - 1) for _ in range(2)], "items": False, "minItems": 2}
        return out

    def object(self, depth):
        names = list({self.name() for _ in range(self.dice.randrange(1, 5))})
        required = [n for n in names if self.dice.random() < 0.7]
        return {"type": "object", "properties": {n: self.value(depth - 1) for n in names}, "required": required,
                "additionalProperties": False}

    def union(self, depth):
        return {"anyOf": [self.value(depth - 1) for _ in range(self.dice.randrange(2, 4))]}

    def value(self, depth):
        if depth <= 0:
            return self.leaf()
        return self.dice.choice([self.object, self.object, self.array, self.union, lambda _: self.leaf(),
                                 lambda _: {"type": [self.dice.choice(["integer", "boolean"]), "null"]}])(depth)

    def whole(self):
        schema = self.object(self.dice.randrange(1, 4))
        if self.dice.random() < 0.3:
            schema["$defs"] = {"shared": self.object(1)}
            schema["properties"]["ref"] = {"$ref": "#/$defs/shared"}
            schema["required"].append("ref")
        return schema


def ask(url, schema, seed, max_tokens):
    body = {"model": "model", "messages": [{"role": "user", "content": "Give a JSON object about a mill."}],
            "max_tokens": max_tokens, "temperature": 0.8, "seed": seed,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def judge(url, schema, seed, max_tokens):
    status, answer = ask(url, schema, seed, max_tokens)
    if status != 200:
        return "refused", answer["error"]["message"]
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    is_whole = choice["finish_reason"] == "stop"
    try:
        jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)
    except (ValueError, jsonschema.ValidationError) as error:
        return "wrong" if is_whole else "cut", f"{json.dumps(schema)} -> {text}: {str(error)[:200]}"
    return "valid" if is_whole else "shortened", ""


def mask_cost(arguments, url, clients):
    run = ("--concurrency", clients, "--requests", 4 * clients, "--warmup", 1, "--input-tokens", 64, "--output-tokens", 96,
           "--model", "model", "--temperature", 0)
    bound = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {
        "type": "object", "properties": {"text": {"type": "string", "minLength": 600}}, "required": ["text"],
        "additionalProperties": False}}}}
    # The median time between tokens is that of a step with all clients; means also tell how they arrived.
    def step_ms(*flags):
        return load(arguments, url, *run, *flags)["itl_ms"]["median"]

    pairs = [(step_ms("--ignore-eos"), step_ms("--extra-body", json.dumps(bound))) for _ in range(arguments.rounds)]
    return min(a for a, _ in pairs), min(b for _, b in pairs), statistics.median(b / a for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--schemas", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quern", default="build/release/quern")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    schemas = Schemas(arguments.seed)
    wanted = [schemas.whole() for _ in range(arguments.schemas)]
    with quern_server(arguments, arguments.model, "--served-model-name", "model") as url:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(lambda i: judge(url, wanted[i], i, arguments.max_tokens), range(len(wanted))))
        counts = {name: sum(o[0] == name for o in outcomes) for name in ("valid", "shortened", "cut", "wrong", "refused")}
        print(f"{len(wanted)} schemas: {counts}")
        for kind in ("wrong", "refused", "cut"):
            for message in sorted({re.sub(r"\$[^:]*:", "", text) for name, text in outcomes if name == kind})[:8]:
                print(f"  {kind}: {message}")
        for clients in (1, 32):
            free, masked, ratio = mask_cost(arguments, url, clients)
            print(f"{clients} at once: {free:.2f} ms a step free, {masked:.2f} bound to a schema: "
                  f"{ratio - 1:+.1%} (median of ratios)")


if __name__ == "__main__":
    main()
