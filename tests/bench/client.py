"""Requests to a server under measurement, in the one dialect that all of them support."""

import json
from collections.abc import Callable
from typing import Any

from atelier.json_types import Json
from tests.bench.exchange import Exchange, exchange
from tests.bench.outcomes import Interrupted, NoFigures, NotOffered
from tests.bench.trace import Trace, read_trace
from tests.bench.words import Words

CHAT = "/v1/chat/completions"
# Set explicitly, because the servers' defaults differ.
SAMPLING: Json = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1}


class Client:
    """Sends requests to one server. `adapt` changes a body where that server's fields differ."""

    def __init__(self, port: int, model: str, adapt: Callable[[Json], Json]) -> None:
        self.port = port
        self._model = model
        self._adapt = adapt

    async def chat(
        self, messages: list[Json], words: Words, tokens: int, on_piece: Callable[[], None] | None = None, **more: Any
    ) -> Trace:
        """A whole stream of so many tokens; NoFigures when it is anything else."""
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": tokens,
            "seed": words.seed(),
            "stream": True,
            "stream_options": {"include_usage": True},
            **SAMPLING,
            **({"ignore_eos": True} | more),
        }
        done = await exchange(self.port, CHAT, self._adapt(body), on_piece)
        trace = read_trace(done.sent, done.pieces) if done.status == 200 else refused(done)
        return checked(trace)

    async def post(self, path: str, body: Json) -> Json:
        done = await exchange(self.port, path, self._adapt({"model": self._model, **body}))
        if done.status != 200:
            refused(done)
        reply: Json = json.loads(done.body)
        return reply


def refused(done: Exchange) -> Trace:
    """A 4xx and a 501 say that the server does not do this; anything else is a failure."""
    said = done.body[:300].decode(errors="replace")
    kind = NotOffered if 400 <= done.status < 500 or done.status == 501 else NoFigures
    raise kind(f"HTTP {done.status}: {said}")


def checked(trace: Trace) -> Trace:
    if trace.error is not None:
        raise NoFigures(trace.error)
    if not trace.whole:
        raise Interrupted(f"a stream stopped after {trace.tokens} tokens without an end")
    if not trace.arrivals:
        raise NoFigures("an answer without text")
    return trace


def user(content: str) -> Json:
    return {"role": "user", "content": content}


def system(content: str) -> Json:
    return {"role": "system", "content": content}
