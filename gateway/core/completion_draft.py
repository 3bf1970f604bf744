"""A choice that is being collected into a whole completion."""

from dataclasses import dataclass, field

from gateway.core.events import Completion, Delta, Event, Finished, Reasoning, TokenLogprob, ToolCall, ToolCallDelta


@dataclass(slots=True)
class Draft:
    """What has come of one choice so far."""

    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)  # by index: id, name, then pieces of the arguments

    def add(self, event: Event) -> None:
        match event:
            case Delta(_, text, logprobs):
                self.texts.append(text)
                self.logprobs.extend(logprobs)
            case Reasoning(_, text):
                self.reasonings.append(text)
            case ToolCallDelta(_, piece):
                self.calls.setdefault(piece.index, [piece.id, piece.name]).append(piece.arguments)

    def completion(self, finished: Finished, *, logprobs: bool) -> Completion:
        return Completion(
            "".join(self.texts),
            finished,
            self.logprobs if logprobs else None,
            "".join(self.reasonings),
            [ToolCall(id, name, "".join(pieces)) for id, name, *pieces in self.calls.values()],
        )
