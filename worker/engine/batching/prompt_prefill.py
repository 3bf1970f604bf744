"""A sequence's prompt on its way into the KV cache: what is computed, what comes next, what other prompts can reuse."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from worker.engine.batching.completion import rate_token
from worker.engine.batching.scheduler import finer
from worker.engine.cache.prefix_tree import WHOLE, Piece, set_apart
from worker.engine.interface import Echoed, TokenLogprob
from worker.engine.model.decode_run import Image, Run
from worker.engine.model.vocabulary import Detokenizer, Vocabulary
from worker.engine.prompt.checkpoint_places import places_after
from worker.engine.prompt.prompt_preparation import Prepared
from worker.engine.prompt.prompt_slices import BLOCK, Slicing

SCORED_TOKENS = 16  # of a call whose logits are all read: llama.cpp keeps a row of the vocabulary for each


class PromptPrefill:
    """The tokens of a prompt, of which the first `done` are in the sequence's slot.

    `claims` are the pieces that the prefix tree shows as being computed: other prompts can reuse all but the last.
    """

    def __init__(self, prepared: Prepared, *, scored: bool) -> None:
        """`scored`: the logits of all tokens are read, so that all are computed and none is reused."""
        self.tokens = prepared.tokens
        self.scales = prepared.scales  # of the adapters
        self.scored = scored
        self.done = 0
        self.cached = 0  # tokens that were in a cache when it began
        self._images = prepared.images  # by the token that they start at
        # The cache is cut at the ends of slices alone; parts of images are computed one by one.
        slices = _scored_slices(self.tokens) if scored else prepared.slices
        self._ends = sorted({*slices, *_image_ends(self._images)}) if self._images else slices
        self._piece_ends = slices[:-1] if prepared.reusable and not scored else []
        self.places = [] if scored else prepared.places  # where it has checkpoints
        # The end of the prompt is claimed too: no prompt can continue from it, but its twins can start with it.
        pieces = [tuple(self.tokens[start:end]) for start, end in pairwise([0, *self._piece_ends])]
        whole = [*pieces, (*self.tokens[sum(map(len, pieces)) :], WHOLE)]
        self.claims: list[Piece] = [] if scored else self._adapted(whole)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def has_images(self) -> bool:
        return bool(self._images)

    def begin(self, cached: int) -> None:
        """The first `cached` tokens are in the slot."""
        self.done = self.cached = cached
        self.places = places_after(self.places, cached)

    def advance(self, tokens: int) -> int:
        """So many tokens more are computed; returns how many of the claimed pieces they complete."""
        before, self.done = self.done, self.done + tokens
        return bisect_right(self._piece_ends, self.done) - bisect_right(self._piece_ends, before)

    @property
    def slices_left(self) -> list[int]:
        """The lengths of the slices that are not computed yet; of images, of their parts."""
        left = self._ends[bisect_right(self._ends, self.done) :]
        return [end - start for start, end in pairwise([self.done, *left])]

    def finer_slices_left(self) -> list[int]:
        """The same in units that fill a step's time; a part of an image is not cut further."""
        if not self._images:
            return finer(self.slices_left)
        at = self.done
        units: list[int] = []
        for tokens in self.slices_left:
            units += [tokens] if self._image_at(at) else finer([tokens])
            at += tokens
        return units

    def runs(self, slot: int, slices: Sequence[int], *, joined: bool) -> list[Run]:
        """The next slices, one by one, or `joined` into one run except for images: no further than a checkpoint."""
        starts = self._starts(slices)
        borders = [starts[0]]
        for start, end in pairwise(starts):
            if joined and len(borders) > 1 and not (self._image_at(borders[-2]) or self._image_at(start)):
                borders.pop()
            borders.append(end)
        return [self._run(slot, start, end) for start, end in pairwise(borders)]

    def _starts(self, slices: Sequence[int]) -> list[int]:
        """Where the next slices start, and the end of the last one."""
        starts = list(accumulate(slices, initial=self.done))
        place = next((place for place in self.places if self.done < place < starts[-1]), None)
        return starts if place is None else [*(start for start in starts if start < place), place]

    def _run(self, slot: int, start: int, end: int) -> Run:
        """Logits are computed for the prompt's last token, or for every token if the prompt is scored."""
        if self.scored:
            return Run(slot, self.tokens[start:end], start, 0, self.scales, scored=True)
        silent = end - start - 1 if end == len(self.tokens) else end - start
        found = self._image_at(start)
        image = found[1].part(start - found[0], end - found[0]) if found else None
        return Run(slot, self.tokens[start:end], start, silent, self.scales, image)

    def _image_at(self, token: int) -> tuple[int, Image] | None:
        """The image that this token of the prompt is a cell of, and where it starts."""
        return next((each for each in self._images.items() if each[0] <= token < each[0] + len(each[1])), None)

    def is_twin_of(self, other: "PromptPrefill") -> bool:
        """Whether both prompts are the same, computed in the same way."""
        return not self.scored and self.tokens == other.tokens and self.scales == other.scales

    def blocks(self, text: Sequence[int], start: int) -> tuple[list[Piece], Piece]:
        """The text that begins with this prompt from token `start` on, in pieces like a prompt's; then the rest.

        None where an image ends the prompt: a slot is never cut within one.
        """
        if any(at >= start for at in self._images):
            return [], ()
        ends = range(start + BLOCK, len(text) + 1, BLOCK)
        blocks: list[Piece] = [tuple(text[end - BLOCK : end]) for end in ends]
        rest = tuple(text[start + BLOCK * len(blocks) :])
        return (blocks if start else self._adapted(blocks)), rest

    def _adapted(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The beginning of a text, distinguished from the same text with other adapters."""
        return set_apart(pieces, self.scales) if self.scales else list(pieces)


class PromptEcho:
    """Returns the prompt of one choice part by part, with its log-probabilities where they are requested."""

    def __init__(self, choice: int, prompt: Sequence[int], vocabulary: Vocabulary, top_logprobs: int | None) -> None:
        self._choice = choice
        self._prompt = prompt
        self._vocabulary = vocabulary
        self._top_logprobs = top_logprobs
        self._detokenizer = Detokenizer(vocabulary)

    @property
    def scored(self) -> bool:
        """Whether it needs the logits of all tokens."""
        return self._top_logprobs is not None

    def whole(self) -> Echoed:
        """The prompt without log-probabilities."""
        text = "".join(map(self._detokenizer.push, self._prompt)) + self._detokenizer.flush()
        return Echoed(self._choice, text)

    def score(self, start: int, rows: Sequence[NDArray[np.float32]]) -> Echoed:
        """The tokens whose log-probabilities follow from `rows`, the logits of the prompt's tokens from `start` on."""
        first = [TokenLogprob(self._prompt[0], self._vocabulary.piece(self._prompt[0]), None)] if start == 0 else []
        followers = self._prompt[start + 1 : start + 1 + len(rows)]
        top = self._top_logprobs or 0
        rated = [rate_token(self._vocabulary, row, token, top) for row, token in zip(rows, followers, strict=False)]
        rated = [*first, *rated]
        text = "".join(self._detokenizer.push(each.id) for each in rated)
        if start + len(rows) == len(self._prompt):
            text += self._detokenizer.flush()
        return Echoed(self._choice, text, rated)


def _scored_slices(prompt: Sequence[int]) -> list[int]:
    """Ends of slices whose logits one call can keep."""
    return [*range(SCORED_TOKENS, len(prompt), SCORED_TOKENS), len(prompt)]


def _image_ends(images: Mapping[int, Image]) -> list[int]:
    """Ends of the parts of images."""
    return [at + end for at, image in images.items() for end in Slicing(image.at_once).cut(range(len(image)))]
