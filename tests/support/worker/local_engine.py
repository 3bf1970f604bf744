"""An engine in this process: a model, its batcher, and calls that are stepped by the test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.generation_types import Finished, Statistics
from atelier.launch import LaunchSpec
from atelier.settings import Load
from atelier.settings.groups import Inference
from worker.engine.batching.sequence import Sequence, Ticket
from worker.engine.interface import ChatPrompt, Delta, Failed, Request, Source
from worker.engine.model.loaded_model import LlamaLog
from worker.engine.model_loading import load_model

MOST_STEPS = 2000


@dataclass(slots=True)
class LocalCall:
    """A call of one choice."""

    ticket: Ticket
    text: str = ""
    end: Statistics | None = None
    error: Exception | None = None

    @property
    def drafted(self) -> int:
        assert self.end is not None
        return self.end.draft_tokens

    @property
    def accepted(self) -> int:
        assert self.end is not None
        return self.end.accepted_draft_tokens


class LocalEngine:
    """`close` frees it."""

    def __init__(self, model: Path, draft: Path | None = None, **load: Any) -> None:
        spec = LaunchSpec(
            instance_id="test/model",
            engine="llama",
            model_path=str(model),
            draft_model_path=str(draft) if draft else None,
            load=Load(**load),
            address="",
            token="",
            grace_seconds=60,
        )
        self._log = LlamaLog()
        self._loaded = load_model(spec, self._log, lambda _: True)
        assert self._loaded.batcher is not None
        self._batcher = self._loaded.batcher
        self._calls: list[LocalCall] = []

    @property
    def chat_template(self) -> str | None:
        """The model's."""
        return self._loaded.model.chat_template

    def submit(
        self, prompt: str | ChatPrompt, *, max_tokens: int, seed: int = 0, key: str = "", **fields: Any
    ) -> LocalCall:
        """A string is a chat of one message. `fields`: of the request, and `sampling`."""
        sampling = Inference(max_tokens=max_tokens, **fields.pop("sampling", {}))
        if isinstance(prompt, str):
            prompt = ChatPrompt([{"role": "user", "content": prompt}])
        prepared = self._loaded.preparer.prepare(Request(prompt, sampling, fairness_key=key, **fields))
        ticket = Ticket(Source(0, len(self._calls)), 1)
        self._calls.append(LocalCall(ticket))
        self._batcher.add([Sequence(ticket, 0, prepared, seed, self._loaded.model.vocabulary)])
        return self._calls[-1]

    def step(self) -> None:
        for source, event in self._batcher.step():
            call = self._calls[source.call]
            match event:
                case Delta():
                    call.text += event.text
                case Finished():
                    call.end = event.statistics
                case Failed(error):
                    call.error = error

    def finish(self) -> None:
        for _ in range(MOST_STEPS):
            if self._batcher.idle:
                return
            self.step()
        raise AssertionError("the completions do not end")

    def close(self) -> None:
        self._batcher.abandon()
        self._loaded.close()
