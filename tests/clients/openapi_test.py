"""Schemathesis: calls made from the OpenAPI document, right and wrong ones. None may end in a 5xx
(501 of /v1/embeddings apart) or in an answer that the document does not describe; none that the
document forbids may be accepted."""

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (content_type_conformance, negative_data_rejection,
                                               response_schema_conformance,
                                               status_code_conformance)

CHECKS = [content_type_conformance, negative_data_rejection, response_schema_conformance,
          status_code_conformance]


@pytest.fixture(scope="session")
def document(server):
    return schemathesis.openapi.from_url(server.url + "/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True,
                     suppress_health_check=list(hypothesis.HealthCheck))
def test_answers_are_what_the_document_says(case):
    if isinstance(case.body, dict):
        # Answers need not be long to be checked.
        for field in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if isinstance(case.body.get(field), int) and case.body[field] > 4:
                case.body[field] = 4
        for field in ("n", "min_tokens"):
            if isinstance(case.body.get(field), int) and case.body[field] > 2:
                case.body.pop(field)
    response = case.call()
    checks = CHECKS if case.path == "/v1/embeddings" else [*CHECKS, not_a_server_error]
    if response.status_code == 501 and case.path == "/v1/embeddings":
        checks = [content_type_conformance, response_schema_conformance, status_code_conformance]
    case.validate_response(response, checks=checks)
