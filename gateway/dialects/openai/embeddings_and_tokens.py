"""Embeddings, reranking as Jina and Cohere have it, and llama.cpp's tokens: bodies, calls and replies. Pure."""

import base64
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal, NotRequired

from pydantic import Field, Tag
from typing_extensions import TypedDict

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.core.call import EmbedCall, Embeddings, RerankCall, Scores, TokenizeCall
from gateway.core.call import Tokenization as TokenizedText
from gateway.dialects.body import Body, by_content, by_json_type
from gateway.dialects.openai.openai_requests import MOST_INPUTS, MOST_TOKENS, TokenId
from gateway.dialects.route import Nullable

InputText = Annotated[str, Field(min_length=1)]
InputTokens = Annotated[list[TokenId], Field(min_length=1)]
Input = Annotated[
    Annotated[InputText, Tag("(text)")]
    | Annotated[list[InputText], Field(min_length=1, max_length=MOST_INPUTS), Tag("(list)")]
    | Annotated[InputTokens, Tag("(numbers)")]
    | Annotated[list[InputTokens], Field(max_length=MOST_INPUTS), Tag("(lists)")],
    by_content("input", "must be a string, a list of strings, token ids, or a list of lists of token ids"),
]


class EmbeddingBody(Body):
    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    input: Input
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="How many numbers of each vector to keep."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: the numbers as little-endian 32-bit floats."
    )
    user: str | None = None


class DocumentText(Body):
    text: str


Document = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[DocumentText, Tag("(object)")],
    by_json_type({str: "(text)", dict: "(object)"}, "document", "must be a string or an object with text"),
]


class RerankBody(Body):
    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[Document], Field(min_length=1, max_length=MOST_INPUTS)]
    top_n: Annotated[int, Field(ge=1)] | None = Field(None, description="How many of the best documents to return.")
    return_documents: bool | None = Field(None, description="Include the documents in the reply.")


class TokenizeBody(Body):
    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    content: str
    add_special: bool | None = Field(None, description="Add the model's special tokens, such as begin-of-sequence.")
    parse_special: bool | None = Field(None, description="false: special tokens written in the text are plain text.")
    with_pieces: bool | None = Field(None, description="Include each token's text.")


class DetokenizeBody(Body):
    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    tokens: Annotated[list[TokenId], Field(max_length=MOST_TOKENS)]


class PromptUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Vector(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: Annotated[list[float] | str, Field(description="Of unit length; a base64 string if requested.")]


class Vectors(TypedDict):
    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: PromptUsage


class RankedDocument(TypedDict):
    index: int
    relevance_score: float
    document: NotRequired[Nullable[Json]]


class Ranking(TypedDict):
    object: Literal["list"]
    model: str
    results: Annotated[list[RankedDocument], Field(description="The best first.")]
    usage: PromptUsage


class TokenPiece(TypedDict):
    id: int
    piece: Annotated[str | list[int], Field(description="The token's text, or its bytes if they are not valid UTF-8.")]


class TokenList(TypedDict):
    tokens: list[int] | list[TokenPiece]


class WrittenText(TypedDict):
    content: str


class WrittenPrompt(TypedDict):
    prompt: str


def embed_call(body: EmbeddingBody) -> EmbedCall:
    texts, tokens = embed_inputs(body.input)
    return EmbedCall(model=body.model, texts=texts, tokens=tokens, dimensions=body.dimensions)


def embed_inputs(inputs: str | list[str] | list[int] | list[list[int]]) -> tuple[list[str], list[list[int]]]:
    """Texts and token lists, one of which is empty."""
    if isinstance(inputs, str):
        return [inputs], []
    if isinstance(inputs[0], int):
        return [], [[each for each in inputs if isinstance(each, int)]]
    return [each for each in inputs if isinstance(each, str)], [each for each in inputs if isinstance(each, list)]


def embedding_list(embeddings: Embeddings, encoding: str | None) -> Vectors:
    encode: Callable[[Sequence[float]], list[float] | str] = base64_vector if encoding == "base64" else list
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
    """The numbers as little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def reading_usage(prompt_tokens: int) -> PromptUsage:
    """The usage of a call that generates nothing."""
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}


def rerank_call(body: RerankBody) -> RerankCall:
    return RerankCall(model=body.model, query=body.query, documents=document_texts(body))


def rerank_reply(scores: Scores, body: RerankBody) -> Ranking:
    texts = document_texts(body) if body.return_documents else None
    return {
        "object": "list",
        "model": scores.model,
        "results": [result(index, scores.values[index], texts) for index in best_first(scores, body.top_n)],
        "usage": reading_usage(scores.prompt_tokens),
    }


def best_first(scores: Scores, most: int | None) -> list[int]:
    """Indices of the documents; equal scores keep the documents' order."""
    return sorted(range(len(scores.values)), key=lambda index: -scores.values[index])[:most]


def result(index: int, score: float, texts: list[str] | None) -> RankedDocument:
    entry: RankedDocument = {"index": index, "relevance_score": score}
    return entry if texts is None else {**entry, "document": {"text": texts[index]}}


def document_texts(body: RerankBody) -> list[str]:
    return [each if isinstance(each, str) else each.text for each in body.documents]


def tokenize_call(body: TokenizeBody) -> TokenizeCall:
    return TokenizeCall(
        model=body.model,
        text=body.content,
        add_special=bool(body.add_special),
        parse_special=body.parse_special is not False,
    )


def token_list(tokens: TokenizedText, *, with_pieces: bool) -> TokenList:
    if not with_pieces:
        return {"tokens": list(tokens.ids)}
    pairs = zip(tokens.ids, tokens.pieces, strict=True)
    pieces: list[TokenPiece] = [{"id": id, "piece": piece_text(piece)} for id, piece in pairs]
    return {"tokens": pieces}


def piece_text(piece: bytes) -> str | list[int]:
    """The text, or the bytes if they are not valid UTF-8 by themselves."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


@contextmanager
def errors_named(field: str) -> Iterator[None]:
    """Makes a worker's errors name the request's field: to a worker every input is a prompt."""
    try:
        yield
    except InvalidRequest as error:
        if error.param not in ("prompt", "messages"):
            raise
        raise type(error)(error.message, param=field) from None
