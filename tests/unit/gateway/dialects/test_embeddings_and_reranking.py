"""Embeddings and reranking: request bodies to calls, and results to replies."""

import base64
import json
import struct
from typing import Any

import pytest

from atelier.errors import InvalidRequest
from gateway.core.call import EmbedCall, Embeddings, RerankCall, Scores
from gateway.dialects.body import parse
from gateway.dialects.openai.embeddings_and_tokens import (
    EmbeddingBody,
    RerankBody,
    embed_call,
    embedding_list,
    rerank_call,
    rerank_reply,
)

VECTORS = Embeddings("m", [[0.5, -0.25], [1.0, 0.0]], 7)


def embedding(**fields: Any) -> EmbeddingBody:
    return parse(json.dumps({"model": "m", **fields}).encode(), EmbeddingBody)


def ranking(**fields: Any) -> RerankBody:
    return parse(
        json.dumps({"model": "m", "query": "q", "documents": ["a", {"text": "b"}, "c"], **fields}).encode(), RerankBody
    )


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ("a", EmbedCall(model="m", texts=["a"], tokens=[])),
        (["a", "b"], EmbedCall(model="m", texts=["a", "b"], tokens=[])),
        ([1, 2], EmbedCall(model="m", texts=[], tokens=[[1, 2]])),
        ([[1, 2], [3]], EmbedCall(model="m", texts=[], tokens=[[1, 2], [3]])),
    ],
)
def test_every_form_of_input_is_accepted(given: Any, call: EmbedCall) -> None:
    assert embed_call(embedding(input=given, user="someone")) == call


@pytest.mark.parametrize(
    "given", [None, 3, "", [], [""], [[]], ["a", ""], ["a", 1], [1, "a"], [-1], [True], ["a"] * 2049, [[1]] * 2049]
)
def test_other_forms_of_input_are_rejected_by_field_name(given: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embedding(input=given)
    assert str(caught.value.param).startswith("input")


@pytest.mark.parametrize(("field", "value"), [("dimensions", 0), ("dimensions", "3"), ("encoding_format", "hex")])
def test_invalid_fields_are_rejected_by_field_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embedding(input="a", **{field: value})
    assert caught.value.param == field


def test_dimensions_reach_the_call() -> None:
    assert embed_call(embedding(input="a", dimensions=3)).dimensions == 3


@pytest.mark.parametrize("encoding", [None, "float"])
def test_vectors_are_returned_as_numbers(encoding: str | None) -> None:
    assert embedding_list(VECTORS, encoding) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_base64_vectors_are_little_endian_floats() -> None:
    encoded = [entry["embedding"] for entry in embedding_list(VECTORS, "base64")["data"]]
    assert [struct.unpack("<2f", base64.b64decode(each)) for each in encoded] == [(0.5, -0.25), (1.0, 0.0)]


def test_documents_are_strings_or_objects_with_text() -> None:
    assert rerank_call(ranking()) == RerankCall(model="m", query="q", documents=["a", "b", "c"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("documents", []),
        ("documents", "a"),
        ("documents", [1]),
        ("documents", [{"title": "a"}]),
        ("documents", ["a"] * 2049),
        ("query", ""),
        ("query", None),
        ("top_n", 0),
    ],
)
def test_an_invalid_ranking_is_rejected_by_field_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ranking(**{field: value})
    assert str(caught.value.param).startswith(field)


def test_documents_are_sorted_by_score_then_by_position() -> None:
    reply = rerank_reply(Scores("m", [0.5, 2.0, 0.5], 9), ranking())
    assert reply["results"] == [
        {"index": 1, "relevance_score": 2.0},
        {"index": 0, "relevance_score": 0.5},
        {"index": 2, "relevance_score": 0.5},
    ]
    assert (reply["model"], reply["usage"]) == ("m", {"prompt_tokens": 9, "total_tokens": 9})


def test_the_requested_number_of_results_is_returned_with_documents() -> None:
    reply = rerank_reply(Scores("m", [0.5, 2.0, 0.5], 9), ranking(top_n=1, return_documents=True))
    assert reply["results"] == [{"index": 1, "relevance_score": 2.0, "document": {"text": "b"}}]
