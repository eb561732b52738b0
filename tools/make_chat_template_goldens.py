#!/usr/bin/env python3
"""Makes tests/golden/chat_template/*.json: what Jinja2, configured as transformers does, renders.

Usage: make_chat_template_goldens.py                  writes constructs.json and families.json
       make_chat_template_goldens.py FOLDER OUTPUT    writes the same for every *.jinja of FOLDER

A case is {name, template, messages, tools, add_generation_prompt, variables} and either "output" or
"error": true, where Jinja2 fails. Needs jinja2 alone.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "chat_template"
NOW = datetime.datetime(2024, 7, 4, 15, 7, 9)
BOS, EOS = "<s>", "</s>"


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def make_environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = NOW.strftime
    return environment


ENVIRONMENT = make_environment()


def render(case):
    names = {"messages": case.get("messages", []), "tools": case.get("tools"),
             "documents": case.get("documents"),
             "add_generation_prompt": case.get("add_generation_prompt", False),
             "bos_token": BOS, "eos_token": EOS}
    return ENVIRONMENT.from_string(case["template"]).render(**case.get("variables", {}), **names)


def solved(case):
    try:
        output = render(case)
        output.encode("utf-8")  # a lone surrogate cannot be sent to any tokenizer
        return {**case, "output": output}
    except Exception:  # whatever Python raises, the template fails
        return {**case, "error": True}


# Each line of the battery is one template over these names.
VARIABLES = {
    "s": "Hello, World", "u": "äß中😀é", "empty": "", "space": "  a b\tc \n", "n": 7, "f": 2.5,
    "neg": -3, "big": 1e20, "tiny": 1e-7, "yes": True, "no": False, "nothing": None,
    "list": [3, 1, 2], "words": ["b", "A", "c", "a"], "nested": [[1, 2], [3, [4, 5]]],
    "d": {"b": 1, "a": [1, "x", None], "C": {"k": "v"}}, "items": {"items": 5, "keys": 6},
    "people": [{"name": "Bob", "age": 30, "tag": "x"}, {"name": "alice", "age": 25, "tag": "y"},
               {"name": "Carl", "age": 30, "tag": "x"}, {"name": "dora", "tag": None}],
    "quotes": "it's \"q\" \\ \n\t\x01 é \u200b", "html": "<a href='x'>&\"</a>", "digits": "  42 ",
    "lines": "one\ntwo\r\nthree\n\nfive", "mixed": [1, 2.0, "x", None, True, {"a": (1)}],
    "tree": [{"v": "a", "c": [{"v": "b", "c": []}, {"v": "c", "c": [{"v": "d", "c": []}]}]}],
}


def read_battery():
    """Cases from constructs.txt: separated by lines of '----', the text as it is."""
    text = (GOLDEN / "constructs.txt").read_text(encoding="utf-8")
    parts = text.split("\n----\n")
    return [part[:-1] if part.endswith("\n") and i + 1 == len(parts) else part
            for i, part in enumerate(parts)]


def conversations():
    tool = {"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a \"city\" <b>.",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "Name, e.g. Zürich"},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "days": {"type": ["integer", "null"], "description": "how many"},
            "points": {"type": "array", "items": {"type": "object", "properties": {
                "lat": {"type": "number"}, "lon": {"type": "number"}}, "required": ["lat"]}}},
            "required": ["city"]}}}
    plain_tool = {"type": "function", "function": {
        "name": "now", "description": "The time.", "parameters": {"type": "object",
                                                                   "properties": {}}}}
    call = {"role": "assistant", "content": "", "tool_calls": [
        {"id": "abcdef123", "type": "function", "function": {
            "name": "get_weather", "arguments": {"city": "Zürich", "unit": "c"}}}]}
    answer = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123",
              "content": "{\"t\": 21}"}
    user, assistant = "user", "assistant"
    say = lambda role, content, **more: {"role": role, "content": content, **more}
    return [
        ("one", [say(user, "Hi <|im_end|> there")], None, True, {}),
        ("spaces", [say("system", "  Be brief. \n"), say(user, "\n Hi \n\n")], None, True, {}),
        ("turns", [say("system", "Be brief."), say(user, "Hi"), say(assistant, "Hello!"),
                   say(user, "Bye äß中😀")], None, True, {}),
        ("finished", [say(user, "Hi"), say(assistant, "Hello </s><eos>")], None, False, {}),
        ("thought", [say(user, "2+2?"), say(assistant, "<think>\nsum\n</think>\n\n4"),
                     say(user, "and 3?"),
                     say(assistant, "7", reasoning_content="add three", thinking="add three"),
                     say(user, "ok")], None, True, {}),
        ("no_thinking", [say(user, "2+2?")], None, True, {"enable_thinking": False}),
        ("thinking", [say(user, "2+2? /no_think")], None, True,
         {"enable_thinking": True, "reasoning_effort": "high"}),
        ("tools", [say("system", "Use tools."), say(user, "Weather in Zürich?")],
         [tool, plain_tool], True, {}),
        ("tool_call", [say(user, "Weather?"), call, answer, say(assistant, "21 degrees."),
                       say(user, "Thanks")], [tool], True, {}),
        ("tool_pending", [say("system", "S"), say(user, "Weather?"), call, answer], [tool], True, {}),
        ("tool_pairs", [say(user, "Weather?"), call, answer, answer,
                        say(assistant, "Twice 21.")], [tool], False, {}),
        ("parts", [say(user, [{"type": "text", "text": "Look: "}, {"type": "text", "text": "here"}])],
         None, True, {}),
        ("bad_order", [say(user, "a"), say(user, "b")], None, True, {}),
        ("bad_role", [say("robot", "a")], None, True, {}),
        ("nobody", [], None, True, {}),
        ("null", [say(user, "x"), {"role": assistant, "content": None, "tool_calls": call["tool_calls"]},
                  answer], [tool], True, {}),
    ]


def family_cases(folder):
    cases = []
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, messages, tools, prompt, variables in conversations():
            case = {"name": f"{path.stem}/{name}", "file": path.name, "messages": messages,
                    "add_generation_prompt": prompt}
            if tools is not None:
                case["tools"] = tools
            if variables:
                case["variables"] = variables
            result = solved({**case, "template": source})
            del result["template"]
            cases.append(result)
    return cases


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n",
                    encoding="utf-8")
    failed = sum("error" in case for case in value["cases"])
    print(f"{path}: {len(value['cases'])} cases, {failed} of them errors")


def main():
    if len(sys.argv) == 3:
        write(pathlib.Path(sys.argv[2]), {"cases": family_cases(sys.argv[1])})
        return
    battery = [solved({"name": f"{i}", "template": source, "variables": VARIABLES})
               for i, source in enumerate(read_battery())]
    for case in battery:
        del case["variables"]
    write(GOLDEN / "constructs.json", {"variables": VARIABLES, "cases": battery})
    write(GOLDEN / "families.json", {"cases": family_cases(GOLDEN / "families")})


if __name__ == "__main__":
    main()
