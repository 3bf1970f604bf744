"""The structured results of the tools that no REST route gives in this form."""

from typing import Literal

from pydantic import Field

from gateway.dialects.native.download_reply_types import DownloadObject
from gateway.dialects.route import Reply


class Usage(Reply):
    """In tokens."""

    prompt_tokens: int
    cached_tokens: int = Field(description="Those of the prompt that need not be computed again.")
    completion_tokens: int


class Generated(Reply):
    model: str
    instance: str = Field(description="That answered.")
    text: str
    reasoning: str | None = Field(description="What the model thought before it answered.")
    finish_reason: Literal["stop", "length"] = Field(description="length: there was no room, or no leave, for more.")
    usage: Usage
    unenforced: list[str] = Field(description="Keywords of the JSON Schema that the answer may violate.")
    dropped_messages: int = Field(description="Left out of the chat, to make it fit.")


class Vectors(Reply):
    model: str
    embeddings: list[list[float]] = Field(description="Of unit length, in the order of the texts.")
    prompt_tokens: int


class Ranked(Reply):
    index: int = Field(description="Of the document, from 0.")
    relevance_score: float


class Ranking(Reply):
    model: str
    results: list[Ranked] = Field(description="The best first.")
    prompt_tokens: int


class TokenPiece(Reply):
    id: int
    piece: str | list[int] = Field(description="What it is written as; bytes, where they are no text by themselves.")


class TokenPieces(Reply):
    model: str
    count: int
    tokens: list[TokenPiece]


class Loaded(Reply):
    instance_id: str
    model: str
    load_time_seconds: float
    context_length: int


class Unloaded(Reply):
    instance_id: str


class Downloaded(Reply):
    status: Literal["downloaded", "already_downloaded"]
    model_key: str = Field(description="What to call the model now.")
    download: DownloadObject | None
