"""A transfer's progress."""

from collections.abc import Callable


class Meter:
    """Written by the transfer's thread, read by any."""

    def __init__(self) -> None:
        self.verifying = False
        self.expected_bytes = 0  # of all files together, where the download does not list them; 0: unknown
        self._by_file: dict[str, int] = {}

    @property
    def done_bytes(self) -> int:
        return sum(list(self._by_file.values()))

    def of(self, name: str) -> Callable[[int], None]:
        """A callback for the number of bytes that this file has."""

        def note(received: int) -> None:
            self._by_file[name] = received

        return note
