"""Schemathesis: calls made from the OpenAPI document, right and wrong ones. None may end in a 5xx
or in an answer that the document does not describe; none that the document forbids may be accepted."""

import os

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (content_type_conformance, negative_data_rejection,
                                               response_schema_conformance,
                                               status_code_conformance)

CHECKS = [content_type_conformance, negative_data_rejection, not_a_server_error,
          response_schema_conformance, status_code_conformance]
WITH_BODY = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
             "/v1/messages/count_tokens", "/v1/embeddings", "/tokenize", "/detokenize",
             "/admin/models/load", "/admin/models/unload"]
WITHOUT = ["/v1/models", "/v1/models/{id}"]
RIGHT, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
TIMEOUT_S = 120
SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get("QUERN_TEST_EXAMPLES", "40")), deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate])


@pytest.fixture(scope="session")
def document(server):
    return schemathesis.openapi.from_url(server.url + "/openapi.json")


def test_every_operation_is_tried(document):
    assert {result.ok().path for result in document.get_all_operations()} == {
        *WITH_BODY, *WITHOUT}


# The field of each endpoint that limits an answer.
LENGTHS = {"/v1/chat/completions": "max_completion_tokens", "/v1/completions": "max_tokens",
           "/v1/responses": "max_output_tokens"}


def shorten(path, body):
    """Answers need not be long to be checked."""
    if not isinstance(body, dict):
        return
    for field in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n"):
        if type(body.get(field)) is int and body[field] > 4:
            body[field] = 4
    if path in LENGTHS and body.get("max_tokens") is None and body.get(LENGTHS[path]) is None:
        body[LENGTHS[path]] = 4


@pytest.mark.parametrize("path, mode", [*((path, RIGHT) for path in WITH_BODY + WITHOUT),
                                        *((path, WRONG) for path in WITH_BODY)])
def test_answers_are_what_the_document_says(document, path, mode):
    [operation] = [result.ok() for result in document.get_all_operations()
                   if result.ok().path == path]

    @SETTINGS
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def calls(case):
        if mode == RIGHT:
            shorten(path, case.body)
        response = case.call(timeout=TIMEOUT_S)
        case.validate_response(response, checks=CHECKS)

    calls()
