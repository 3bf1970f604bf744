"""What is known of one HTTP request at its end, for the log line and the metrics."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """Owned by the request's task: opened by the outermost middleware, filled in by the core."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    model: str = ""  # the model's key, never the client's words
    prompt_tokens: int = 0  # of all its generations
    completion_tokens: int = 0
    generations: int = 0  # that have ended
    error: str = ""  # code of the error that the client got

    def seconds(self) -> float:
        """Since the request came."""
        return time.monotonic() - self.started
