"""Where a prompt is cut into slices: at places that depend on the prompt alone, so that its results do too.

At such a place a prompt can continue from another prompt's cache, and prefill can be interrupted for other
sequences. How many tokens one llama_decode call computes changes its rounding on some devices (see
batch_invariance.py). There each slice has a call of its own, and is never tiny, because the kernels for one
or two tokens differ most. Where slices are long, they end with messages:

    <bos>system: You are ... <end>|user: Hello<end>assistant:     the next prompt shares the first slice
    word word ... |word word ... |the rest                        a long text is cut evenly
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

NO_IMAGES: Mapping[int, int] = MappingProxyType({})
TAIL = 16  # tokens: a prompt's last slice is no shorter where slices matter, unless the prompt is
BLOCK = 4  # tokens of a slice where they do not matter: the finer, the more of a prompt is found in the cache


@dataclass(frozen=True, slots=True)
class Slicing:
    """`grid`: most tokens of a slice, except that the last one includes a rest shorter than `tail`.

    `shortest`: the least number of tokens after which a slice ends before a border token.
    `is_border`: recognises control tokens, which chat templates put around messages.
    """

    grid: int
    shortest: int = TAIL
    is_border: Callable[[int], bool] = lambda token: False
    tail: int = TAIL

    def cut(self, prompt: Sequence[int], images: Mapping[int, int] = NO_IMAGES) -> list[int]:
        """The ends of the prompt's slices; the last is its length. `images`: lengths by start; each is one slice."""
        ends: list[int] = []
        start = 0
        for at, length in sorted(images.items()):
            ends += [start + end for end in self._cut_text(prompt[start:at])]
            start = at + length
            ends.append(start)
        return ends + [start + end for end in self._cut_text(prompt[start:])]

    def _cut_text(self, prompt: Sequence[int]) -> list[int]:
        ends: list[int] = []
        start, total = 0, len(prompt)
        while start < total:
            end = self._end(prompt, start)
            start = total if total - end < self.tail else end
            ends.append(start)
        return ends

    def _end(self, prompt: Sequence[int], start: int) -> int:
        longest = start + self.grid
        for at in range(start + self.shortest, min(longest, len(prompt))):
            if self.is_border(prompt[at]):
                return at
        return longest


BLOCKS = Slicing(BLOCK, tail=2)  # one token alone may be computed by another kernel (see batch_invariance.py)
"""Used where results do not depend on how prompts are cut."""
