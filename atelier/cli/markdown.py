"""An answer while it streams: rendered Markdown on a terminal, plain text in a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from atelier.cli.output import printable, remark

Show = Callable[[str], None]

FENCES = ("```", "~~~")


@dataclass(frozen=True, slots=True)
class Screen:
    """`show` writes the next piece of the answer, `note` a line about it between two pieces."""

    show: Show
    note: Show


@contextmanager
def shown_answer() -> Iterator[Screen]:
    with _live() if sys.stdout.isatty() else _plain() as screen:
        yield screen


@contextmanager
def _plain() -> Iterator[Screen]:
    """Notes go to standard error: a program may read the answer."""
    unfinished_line = False

    def show(piece: str) -> None:
        nonlocal unfinished_line
        sys.stdout.write(piece)
        sys.stdout.flush()
        unfinished_line = not piece.endswith("\n")

    try:
        yield Screen(show, lambda line: remark(printable(line)))
    finally:
        if unfinished_line:
            show("\n")


@contextmanager
def _live() -> Iterator[Screen]:
    """Finished blocks are printed once; only the unfinished block is redrawn."""
    from rich.live import Live
    from rich.markdown import Markdown
    from rich.text import Text

    tail = ""
    with Live(refresh_per_second=12, vertical_overflow="ellipsis") as live:

        def show(piece: str) -> None:
            nonlocal tail
            finished, tail = split_blocks(tail + printable(piece))
            if finished:
                live.update(Markdown(""))
                live.console.print(Markdown(finished), "")
            live.update(Markdown(tail))

        def note(line: str) -> None:
            nonlocal tail
            if tail:
                live.console.print(Markdown(tail), "")
                tail = ""
            live.update(Markdown(""))
            live.console.print(Text(printable(line), style="dim"))

        yield Screen(show, note)


def split_blocks(text: str) -> tuple[str, str]:
    """The Markdown blocks that later text cannot change, and the rest.

    A block ends at a blank line outside a fence, unless indented text follows: it may belong to a list item.
    """
    end = position = 0
    fence, after_blank = "", False
    for line in text.splitlines(keepends=True):
        if after_blank and not fence and line.strip() and not line[0].isspace():
            end = position
        fence = _fence_after(line.strip(), fence)
        after_blank = not line.strip()
        position += len(line)
    return text[:end], text[end:]


def _fence_after(line: str, fence: str) -> str:
    """The fence that is open after this line, or ""."""
    mark = line[:3]
    if mark not in FENCES:
        return fence
    if not fence:
        return mark
    return "" if mark == fence else fence
