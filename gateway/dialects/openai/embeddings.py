"""OpenAI's embeddings to the core's call and back. Pure."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

from gateway.core.call import EmbedCall, Embeddings
from gateway.dialects.openai.openai_requests import EmbeddingBody


def embed_call(body: EmbeddingBody) -> EmbedCall:
    texts, tokens = embed_inputs(body.input)
    return EmbedCall(model=body.model, texts=texts, tokens=tokens, dimensions=body.dimensions)


def embed_inputs(given: str | list[str] | list[int] | list[list[int]]) -> tuple[list[str], list[list[int]]]:
    """Texts and token lists, of which one is empty: the body's branches leave no other."""
    if isinstance(given, str):
        return [given], []
    if isinstance(given[0], int):
        return [], [[each for each in given if isinstance(each, int)]]
    return [each for each in given if isinstance(each, str)], [each for each in given if isinstance(each, list)]


def embedding_list(embeddings: Embeddings, encoding: str | None) -> dict[str, Any]:
    encode = base64_vector if encoding == "base64" else list
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(embeddings.vectors)
        ],
        "model": embeddings.model,
        "usage": reading_usage(embeddings.prompt_tokens),
    }


def base64_vector(vector: Sequence[float]) -> str:
    """Of 32-bit floats, least significant byte first."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def reading_usage(prompt_tokens: int) -> dict[str, int]:
    """Of a call that generates nothing."""
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
