"""The official OpenAI client, unmodified."""

import json
import threading
import time

import openai
import pydantic
import pytest

MESSAGES = [{"role": "user", "content": "Name a city and a number."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function",
     "function": {"name": "weather", "description": "Today's weather.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "description": "The time."}},
]


class Trip(pydantic.BaseModel):
    city: str = pydantic.Field(pattern="^(Paris|Rome)$")
    days: int = pydantic.Field(ge=1, le=3)


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)


def ask(client, server, **fields):
    fields = {"max_tokens": 12, "temperature": 0, "messages": MESSAGES, **fields}
    return client.chat.completions.create(model=server.model, **fields)


def takes_tools(client, server):
    try:
        ask(client, server, tools=TOOLS, max_tokens=1)
        return True
    except openai.BadRequestError as error:
        assert error.param == "tools"
        return False


@pytest.fixture
def tools(client, server):
    if not takes_tools(client, server):
        pytest.skip("the chat template of this model does not take tools")
    return TOOLS


def test_lists_models(client, server):
    assert [model.id for model in client.models.list()] == [server.model]
    assert client.models.retrieve(server.model).owned_by == "quern"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_answers(client, server):
    answer = ask(client, server)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_streams_what_it_answers(client, server):
    answer = ask(client, server)
    chunks = list(ask(client, server, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == answer.choices[0].message.content
    ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert ends == [answer.choices[0].finish_reason]
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_streaming_helper_gathers_the_same(client, server):
    choice = {"guided_choice": ["yes", "no"]}  # the helper takes no answer that was cut short
    with client.chat.completions.stream(model=server.model, messages=MESSAGES, temperature=0,
                                        extra_body=choice) as stream:
        for _ in stream:
            pass
        gathered = stream.get_final_completion()
    answer = ask(client, server, extra_body=choice)
    assert gathered.choices[0].message.content == answer.choices[0].message.content


def test_gives_several_answers_of_one_seed(client, server):
    first = ask(client, server, n=3, seed=7, temperature=1)
    again = ask(client, server, n=3, seed=7, temperature=1)
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) > 1


def test_gives_logprobs(client, server):
    answer = ask(client, server, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert bytes(token.bytes).decode(errors="replace") == token.token
        logprobs = [other.logprob for other in token.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)
    streamed = [token for chunk in ask(client, server, logprobs=True, top_logprobs=3, stream=True)
                for token in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])]
    assert [token.token for token in streamed] == [token.token for token in content]


def test_bias_decides(client, server):
    tokens = client.post("/../tokenize", cast_to=object, body={"prompt": "A"})["tokens"]
    answer = ask(client, server, max_tokens=3, logit_bias={str(tokens[-1]): 100})
    assert answer.choices[0].message.content == "AAA"


def test_stops(client, server):
    whole = ask(client, server, extra_body={"ignore_eos": True}).choices[0].message.content
    stop = next(c for c in whole if c.isascii() and c.isprintable())
    answer = ask(client, server, stop=stop, extra_body={"ignore_eos": True}).choices[0]
    assert answer.message.content == whole.split(stop)[0]
    assert answer.finish_reason == "stop"
    assert answer.stop_reason == stop


def test_holds_answers_to_a_schema(client, server):
    answer = ask(client, server, max_tokens=200, response_format={
        "type": "json_schema", "json_schema": {"name": "trip", "strict": True, "schema": SCHEMA}})
    assert answer.choices[0].finish_reason == "stop"
    Trip.model_validate_json(answer.choices[0].message.content)


def test_ends_a_schema_before_the_last_token(client, server):
    schema = {"type": "object", "properties": {"text": {"type": "string", "minLength": 12}},
              "required": ["text"], "additionalProperties": False}
    for max_tokens in range(26, 34):
        answer = ask(client, server, max_tokens=max_tokens, temperature=1, seed=max_tokens, response_format={
            "type": "json_schema", "json_schema": {"name": "text", "strict": True, "schema": schema}})
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert len(json.loads(answer.choices[0].message.content)["text"]) >= 12


def test_parses_into_a_model(client, server):
    answer = client.chat.completions.parse(
        model=server.model, messages=MESSAGES, max_tokens=200, temperature=0, response_format=Trip)
    assert isinstance(answer.choices[0].message.parsed, Trip)


def test_holds_answers_to_json_and_to_expressions(client, server):
    answer = ask(client, server, max_tokens=60, extra_body={"guided_regex": "[0-9]{3}-[a-f]{2}"})
    text = answer.choices[0].message.content
    assert len(text) == 6 and text[3] == "-"
    answer = ask(client, server, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    assert answer.choices[0].message.content in ("yes", "no")
    answer = ask(client, server, max_tokens=40, response_format={"type": "json_object"})
    assert answer.choices[0].message.content.lstrip().startswith("{")


def test_calls_the_tool_that_is_named(client, server, tools):
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = ask(client, server, max_tokens=300, tools=tools, tool_choice=choice).choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert call.function.name == "weather"
    Trip.model_validate_json(call.function.arguments)
    follow_up = [*MESSAGES, answer.message,
                 {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert ask(client, server, messages=follow_up, tools=tools).choices


def test_streams_tool_calls(client, server, tools):
    name, arguments, ids = "", "", set()
    for chunk in ask(client, server, max_tokens=300, tools=tools, tool_choice="required",
                     parallel_tool_calls=False, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.index == 0
            ids |= {call.id} - {None}
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert len(ids) == 1
    assert name in ("weather", "now")
    json.loads(arguments)


def test_completes_texts(client, server):
    answer = client.completions.create(
        model=server.model, prompt=["Once", "Twice"], n=2, max_tokens=4, temperature=0,
        echo=True, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for choice in answer.choices:
        assert choice.text.startswith("Once" if choice.index < 2 else "Twice")
        logprobs = choice.logprobs
        assert logprobs.token_logprobs[0] is None
        assert all(value <= 0 for value in logprobs.token_logprobs[1:])
        lengths = {len(logprobs.tokens), len(logprobs.text_offset), len(logprobs.token_logprobs),
                   len(logprobs.top_logprobs)}
        assert len(lengths) == 1
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(
        model=server.model, prompt="Once", max_tokens=4, temperature=0, stream=True))
    assert "Once" + text == answer.choices[0].text


def test_responds(client, server):
    answer = client.responses.create(
        model=server.model, input="Hello", instructions="Be brief.", max_output_tokens=8,
        temperature=0)
    assert answer.status in ("completed", "incomplete")
    assert answer.usage.output_tokens >= 1
    events = list(client.responses.create(
        model=server.model, input="Hello", instructions="Be brief.", max_output_tokens=8,
        temperature=0, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == answer.output_text
    assert events[-1].response.output_text == answer.output_text
    with client.responses.stream(model=server.model, input="Hello", text_format=Trip,
                                 max_output_tokens=200, temperature=0) as stream:
        stream.until_done()
        assert isinstance(stream.get_final_response().output_parsed, Trip)


def test_responds_with_calls_and_parsed_text(client, server, tools):
    flat = [{"type": "function", **tool["function"]} for tool in tools]
    answer = client.responses.create(
        model=server.model, input="Weather?", tools=flat, max_output_tokens=300, temperature=0,
        tool_choice={"type": "function", "name": "weather"})
    [call] = [item for item in answer.output if item.type == "function_call"]
    Trip.model_validate_json(call.arguments)
    follow_up = [{"role": "user", "content": "Weather?"}, *answer.output,
                 {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    assert client.responses.create(model=server.model, input=follow_up, tools=flat,
                                   max_output_tokens=4).usage.output_tokens >= 1
    parsed = client.responses.parse(model=server.model, input="Trip?", text_format=Trip,
                                    max_output_tokens=200, temperature=0)
    assert isinstance(parsed.output_parsed, Trip)


@pytest.mark.parametrize("fields, kind, param, code", [
    ({"model": "another"}, openai.NotFoundError, "model", "model_not_found"),
    ({"temperature": -1}, openai.BadRequestError, "temperature", None),
    ({"extra_body": {"colour": 1}}, openai.BadRequestError, "colour", "unknown_parameter"),
    ({"store": True}, openai.BadRequestError, "store", None),
    ({"max_tokens": 1 << 30}, openai.BadRequestError, "messages", "context_length_exceeded"),
    ({"n": 100}, openai.BadRequestError, "n", None),
])
def test_refuses(client, fields, kind, param, code, server):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": server.model, "messages": MESSAGES, **fields})
    assert caught.value.param == param
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def length(vector):
    return sum(x * x for x in vector) ** 0.5


def test_embeds(client, server):
    one = client.embeddings.create(model=server.model, input="A city")  # asks for base64
    assert one.usage.prompt_tokens == one.usage.total_tokens >= 1
    vector = one.data[0].embedding
    assert length(vector) == pytest.approx(1, abs=1e-5)
    floats = client.embeddings.create(model=server.model, input="A city", encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(vector, abs=1e-7)
    tokens = client.post("/../tokenize", cast_to=object, body={"prompt": "A city"})["tokens"]
    for same in (tokens, [tokens]):
        again = client.embeddings.create(model=server.model, input=same)
        assert again.data[0].embedding == vector
    short = client.embeddings.create(model=server.model, input="A city", dimensions=8)
    scale = length(vector[:8])
    assert short.data[0].embedding == pytest.approx([x / scale for x in vector[:8]], abs=1e-5)


def test_embeds_many_as_one(client, server):
    texts = [f"number {i}" for i in range(300)]  # more than may wait
    many = client.embeddings.create(model=server.model, input=texts)
    assert [item.index for item in many.data] == list(range(300))
    for i in (0, 150, 299):
        one = client.embeddings.create(model=server.model, input=texts[i])
        assert one.data[0].embedding == many.data[i].embedding
    assert many.data[0].embedding != many.data[1].embedding


@pytest.mark.parametrize("fields, param", [
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"dimensions": 1 << 20}, "dimensions"),
    ({"input": ["a", [1 << 30]]}, "input[1]"),
    ({"input": [[1], [1 << 30]]}, "input[1]"),
])
def test_refuses_embeddings_it_cannot_make(client, server, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": server.model, "input": "text", **fields})
    assert caught.value.param == param


def running(client):
    import re
    text = client.get("/../metrics", cast_to=str)
    return float(re.search(r"vllm:num_requests_running{[^}]*} ([0-9.e+]+)", text)[1])


def test_a_stream_that_is_left_is_cancelled(client, server):
    stream = ask(client, server, max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    for _, _ in zip(range(3), stream):
        pass
    assert running(client) >= 1
    stream.close()
    deadline = time.monotonic() + 20
    while running(client) > 0:
        assert time.monotonic() < deadline, "the request goes on without its client"
        time.sleep(0.05)


def test_many_at_once_answer_as_one_alone(client, server):
    alone = ask(client, server).choices[0].message.content
    texts = [None] * 8

    def run(index):
        texts[index] = ask(client, server).choices[0].message.content

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [alone] * len(texts)
