"""How far a call is."""

from collections.abc import Awaitable, Callable

LONGEST_MESSAGE = 500  # characters

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""How far, of how much, and what the server says of it."""


class Latest:
    """Passes progress on, one piece at a time; what comes meanwhile is left out: a server may send any number."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._passing = False

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        if self._passing:
            return
        self._passing = True
        try:
            await self._on_progress(progress, total, message[:LONGEST_MESSAGE] if message is not None else None)
        finally:
            self._passing = False
