"""The official Anthropic client, unmodified."""

import json

import anthropic
import pytest

GREEDY = {"temperature": 0}
MESSAGES = [{"role": "user", "content": "Weather in Rome?"}]
TOOLS = [{"name": "weather", "description": "Today's weather.", "input_schema": {
    "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
    "additionalProperties": False}}]


@pytest.fixture
def client(server):
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=120)


def ask(client, server, **fields):
    fields = {"messages": MESSAGES, "max_tokens": 8, "extra_body": GREEDY, **fields}
    return client.messages.create(model=server.model, **fields)


@pytest.fixture
def tools(client, server):
    try:
        ask(client, server, tools=TOOLS, max_tokens=1)
    except anthropic.BadRequestError:
        pytest.skip("the chat template of this model does not take tools")
    return TOOLS


def test_answers(client, server):
    message = ask(client, server, system="Be brief.")
    assert message.type == "message" and message.role == "assistant"
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.output_tokens >= 1


def test_streams_what_it_answers(client, server):
    message = ask(client, server)
    with client.messages.stream(model=server.model, messages=MESSAGES, max_tokens=8,
                                extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "".join(block.text for block in message.content)
    assert [block.text for block in final.content] == [block.text for block in message.content]
    assert final.stop_reason == message.stop_reason
    assert final.usage.output_tokens == message.usage.output_tokens
    events = [event.type for event in ask(client, server, stream=True)]
    assert events[0] == "message_start" and events[-1] == "message_stop"


def test_counts_tokens(client, server):
    counted = client.messages.count_tokens(model=server.model, messages=MESSAGES)
    usage = ask(client, server).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_goes_on_from_its_own_words(client, server):
    message = ask(client, server, messages=[*MESSAGES, {"role": "assistant", "content": "It is"}])
    assert message.usage.output_tokens >= 1


def test_holds_answers_to_a_schema(client, server):
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}},
              "required": ["city"], "additionalProperties": False}
    message = ask(client, server, max_tokens=200,
                  output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(message.content[0].text)["city"] in ("Paris", "Rome")


def test_uses_tools(client, server, tools):
    message = ask(client, server, tools=tools, max_tokens=300,
                  tool_choice={"type": "tool", "name": "weather"})
    assert message.stop_reason == "tool_use"
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert call.name == "weather" and call.input["city"] in ("Paris", "Rome")
    with client.messages.stream(model=server.model, messages=MESSAGES, max_tokens=300, tools=tools,
                                tool_choice={"type": "any", "disable_parallel_tool_use": True},
                                extra_body=GREEDY) as stream:
        final = stream.get_final_message()
    assert final.content[-1].input == call.input
    follow_up = [*MESSAGES, {"role": "assistant", "content": message.content},
                 {"role": "user", "content": [
                     {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}]
    assert ask(client, server, messages=follow_up, tools=tools).usage.output_tokens >= 1


@pytest.mark.parametrize("fields, kind", [
    ({"extra_body": {"model": "another"}}, anthropic.NotFoundError),
    ({"extra_body": {"temperature": 2}}, anthropic.BadRequestError),
    ({"extra_body": {"colour": 1}}, anthropic.BadRequestError),
    ({"max_tokens": 1 << 30}, anthropic.BadRequestError),
])
def test_refuses(client, server, fields, kind):
    with pytest.raises(kind) as caught:
        ask(client, server, **fields)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] in ("not_found_error", "invalid_request_error")
