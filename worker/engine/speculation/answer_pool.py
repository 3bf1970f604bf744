"""The newest answers of a model's clients, as a source of drafts. Each client draws on its own answers alone.

A draft never changes a text, but a text that was drafted arrives sooner. If clients shared answers, one could find out
by timing what another was answered.
"""

from collections import OrderedDict
from collections.abc import Sequence

from worker.engine.speculation.repetition_index import Repetition, RepetitionIndex

CLIENT_TOKENS = 16_384  # kept for a client; about 3 MB
POOL_TOKENS = 131_072  # kept for all clients
MOST_CLIENTS = 256
ANSWER_END = -1  # between two answers: no token has this number, so that no match or draft reaches across


class AnswerPool:
    """Bounded: a client's oldest answers are dropped, and then the clients that have had none for the longest."""

    def __init__(
        self, client_tokens: int = CLIENT_TOKENS, pool_tokens: int = POOL_TOKENS, most_clients: int = MOST_CLIENTS
    ) -> None:
        self._client_tokens = client_tokens
        self._pool_tokens = pool_tokens
        self._most_clients = most_clients
        self._clients: OrderedDict[str, _ClientAnswers] = OrderedDict()  # by key; the last one was answered last
        self._size = 0

    def __len__(self) -> int:
        """Tokens that are kept."""
        return self._size

    @property
    def clients(self) -> int:
        return len(self._clients)

    def add(self, key: str, answer: Sequence[int]) -> None:
        """Keep an answer of the client with this fairness key."""
        if len(answer) <= 1:
            return
        own = self._clients.setdefault(key, _ClientAnswers(self._client_tokens))
        self._clients.move_to_end(key)
        self._size -= len(own)
        own.add(answer)
        self._size += len(own)
        while self._size > self._pool_tokens or len(self._clients) > self._most_clients:
            _, dropped = self._clients.popitem(last=False)
            self._size -= len(dropped)

    def find(self, key: str, tail: Sequence[int], most: int) -> Repetition | None:
        """What followed the last tokens of a text in the client's answers: up to `most` tokens."""
        own = self._clients.get(key)
        return None if own is None else own.find(tail, most)


class _ClientAnswers:
    """Two indexes: once the newer one is full, it takes the place of the older. An index cannot be cut."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._newer, self._older = RepetitionIndex(), RepetitionIndex()

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def add(self, answer: Sequence[int]) -> None:
        kept = answer[-(self._half - 1) :]
        if len(self._newer) + len(kept) + 1 > self._half:
            self._newer, self._older = RepetitionIndex(), self._newer
        self._newer.extend([*kept, ANSWER_END])

    def find(self, tail: Sequence[int], most: int) -> Repetition | None:
        found = [each for index in (self._newer, self._older) if (each := index.find(tail, most)) is not None]
        if not found:
            return None
        best = max(found, key=lambda each: each.length)
        end = next((at for at, token in enumerate(best.followers) if token == ANSWER_END), most)
        return Repetition(best.length, best.followers[:end])
