"""Reranking as Jina and Cohere have it, to the core's call and back. Pure."""

from typing import Any

from gateway.core.call import RerankCall, Scores
from gateway.dialects.openai.embeddings import reading_usage
from gateway.dialects.openai.openai_requests import RerankBody


def rerank_call(body: RerankBody) -> RerankCall:
    return RerankCall(model=body.model, query=body.query, documents=document_texts(body))


def rerank_reply(scores: Scores, body: RerankBody) -> dict[str, Any]:
    texts = document_texts(body) if body.return_documents else None
    return {
        "object": "list",
        "model": scores.model,
        "results": [result(index, scores.values[index], texts) for index in best_first(scores, body.top_n)],
        "usage": reading_usage(scores.prompt_tokens),
    }


def best_first(scores: Scores, most: int | None) -> list[int]:
    """The documents' numbers; of equals the earlier first."""
    return sorted(range(len(scores.values)), key=lambda index: -scores.values[index])[:most]


def result(index: int, score: float, texts: list[str] | None) -> dict[str, Any]:
    entry = {"index": index, "relevance_score": score}
    return entry if texts is None else {**entry, "document": {"text": texts[index]}}


def document_texts(body: RerankBody) -> list[str]:
    return [each if isinstance(each, str) else each.text for each in body.documents]
