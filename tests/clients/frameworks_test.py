"""LangChain's ChatOpenAI and LiteLLM, unmodified."""

import litellm
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


class Trip(pydantic.BaseModel):
    """A trip."""
    city: str = pydantic.Field(pattern="^(Paris|Rome)$")


@tool
def weather(city: str) -> str:
    """Today's weather."""
    return "sunny in " + city


@pytest.fixture
def chat(server):
    return ChatOpenAI(model=server.model, base_url=server.url + "/v1", api_key="none",
                      temperature=0, max_tokens=12, max_retries=0)


def test_langchain_answers_and_streams(chat):
    messages = [SystemMessage("Be brief."), HumanMessage("Hello")]
    answer = chat.invoke(messages)
    assert answer.usage_metadata["output_tokens"] >= 1
    assert "".join(chunk.content for chunk in chat.stream(messages)) == answer.content
    assert [a.content for a in chat.batch([messages, messages])] == [answer.content] * 2


def test_langchain_gives_logprobs(chat):
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke("Hello")
    assert len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


def test_langchain_parses_structured_output(server):
    chat = ChatOpenAI(model=server.model, base_url=server.url + "/v1", api_key="none",
                      temperature=0, max_tokens=200, max_retries=0)
    trip = chat.with_structured_output(Trip, method="json_schema").invoke("Trip?")
    assert trip.city in ("Paris", "Rome")


def test_langchain_takes_tools_back(chat):
    conversation = [
        HumanMessage("Weather in Rome?"),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "call_1"}]),
        ToolMessage("sunny", tool_call_id="call_1"),
    ]
    assert chat.invoke(conversation).usage_metadata["input_tokens"] > 0


def test_langchain_responds(server):
    chat = ChatOpenAI(model=server.model, base_url=server.url + "/v1", api_key="none",
                      temperature=0, max_tokens=12, max_retries=0, use_responses_api=True)
    answer = chat.invoke("Hello")
    assert answer.usage_metadata["output_tokens"] >= 1


def test_langchain_embeds(server):
    embeddings = OpenAIEmbeddings(model=server.model, base_url=server.url + "/v1", api_key="none",
                                  check_embedding_ctx_length=False, max_retries=0)
    vectors = embeddings.embed_documents(["Hello", "Rome"])
    assert vectors[0] == embeddings.embed_query("Hello") != vectors[1]


def complete(server, **fields):
    return litellm.completion(
        model="openai/" + server.model, api_base=server.url + "/v1", api_key="none",
        messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0,
        num_retries=0, **fields)


def test_litellm_answers_and_streams(server):
    answer = complete(server)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in complete(server, stream=True))
    assert text == answer.choices[0].message.content
    assert answer.usage.completion_tokens >= 1


def test_litellm_speaks_anthropic(server):
    answer = litellm.completion(
        model="anthropic/" + server.model, api_base=server.url, api_key="none",
        messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0)
    assert answer.usage.completion_tokens >= 1


def test_litellm_embeds(server):
    answer = litellm.embedding(model="openai/" + server.model, api_base=server.url + "/v1",
                               api_key="none", input=["Hello", "Rome"])
    assert [item["index"] for item in answer.data] == [0, 1]


def test_litellm_reports_errors(server):
    with pytest.raises(litellm.BadRequestError):
        complete(server, presence_penalty=5)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/another", api_base=server.url + "/v1", api_key="none",
                           messages=[{"role": "user", "content": "Hello"}], num_retries=0)
