"""What a step computes of each sequence, and how that goes into llama_decode calls. Pure."""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atelier.adapters import Scales

Embeddings = NDArray[np.float32]
Places = NDArray[np.int32]
PLANES = 4  # numbers that say where a cell is, of models that place images in rows and columns (M-RoPE)
RATED = 16  # tokens of a call whose logits are all read: llama.cpp keeps a row of the vocabulary for each


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the model reads it, or a part of one: some of its cells."""

    embeddings: Embeddings  # [cells, width]
    positions: int  # that the whole image takes
    at_once: int  # cells that a call computes, and a short rest with them
    places: Places | None = None  # [PLANES, cells]: time, row, column, rest; None: one cell after another
    before: int = 0  # cells of the image that come before these
    after: int = 0

    def __len__(self) -> int:
        return len(self.embeddings)

    def part(self, start: int, end: int) -> "Image":
        """These of its cells."""
        places = None if self.places is None else self.places[:, start:end]
        return replace(
            self,
            embeddings=self.embeddings[start:end],
            places=places,
            before=self.before + start,
            after=self.after + len(self) - end,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of one slot. The logits of the first `silent` ones are not needed."""

    slot: int
    tokens: Seq[int]
    start: int  # where the first one goes in the sequence
    silent: int
    scales: Scales = ()  # of the adapters: one set for a whole call
    image: Image | None = None  # what is computed in place of tokens: in a call of its own, and not cut further
    rated: bool = False  # every token's logits are read: in calls of its own

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def alone(self) -> bool:
        """It shares no call."""
        return self.rated or self.image is not None

    def piece(self, at: int, most: int) -> "Run":
        """Up to `most` of its tokens, from token `at` on."""
        tokens = self.tokens[at : at + most]
        silent = min(len(tokens), max(0, self.silent - at))
        return Run(self.slot, tokens, self.start + at, silent, self.scales, rated=self.rated)


def plan_calls(runs: Seq[Run], room: int, *, joined: bool) -> list[list[Run]]:
    """The runs by the calls that compute them, none with more than `room` tokens.

    `joined`: a row's result does not depend on the call's other rows, so that they may all share calls.
    Otherwise only single tokens do, and a run of several has calls of its own:

        A  BBB  C  DD   -->  joined: A BBB C DD     else: A C, BBB, DD

    In the order of the slots: llama.cpp computes rows of neighbouring streams at once, and only of those.
    Runs with different adapters share no call.
    """
    in_order = sorted(runs, key=lambda run: run.slot)
    kinds = dict.fromkeys(run.scales for run in in_order)
    return [
        call for kind in kinds for call in _calls([run for run in in_order if run.scales == kind], room, joined=joined)
    ]


def _calls(in_order: Seq[Run], room: int, *, joined: bool) -> list[list[Run]]:
    """Of runs with the same adapters."""
    if joined:
        return list(_packed((piece for run in in_order for piece in _pieces(run, room)), room))
    single = [run for run in in_order if len(run) == 1]
    longer = [[piece] for run in in_order if len(run) > 1 for piece in _pieces(run, room)]
    return [*_packed(single, room), *longer]


def _pieces(run: Run, room: int) -> Iterator[Run]:
    """The run, cut where it is longer than a call may be; a part of an image never is."""
    if run.image is not None:
        return iter((run,))
    return (run.piece(at, room) for at in range(0, len(run), room))


def _packed(runs: Iterable[Run], room: int) -> Iterator[list[Run]]:
    call: list[Run] = []
    tokens = 0
    for run in runs:
        if call and (run.alone or call[0].alone or tokens + len(run) > room):
            yield call
            call, tokens = [], 0
        call.append(run)
        tokens += len(run)
    if call:
        yield call
