"""All that is known of one model, for who asks for it: more than every watcher needs."""

from collections.abc import Callable
from dataclasses import dataclass

from registry.models.memory_estimate import Estimate
from registry.models.model_record import Model

SHORTEST_CONTEXT = 2048  # tokens; then twice as much, up to what it was trained for


@dataclass(frozen=True, slots=True)
class ModelDescription:
    model: Model
    memory: dict[int, Estimate]  # by context length


def describe_model(model: Model, estimate: Callable[[int], Estimate]) -> ModelDescription:
    """`estimate`: of an instance with this context length."""
    lengths = context_lengths(model.facts.context_length)
    return ModelDescription(model, {length: estimate(length) for length in lengths})


def context_lengths(longest: int) -> list[int]:
    """Those that an estimate is given for: doubled up to the longest, which is the last."""
    if longest <= SHORTEST_CONTEXT:
        return [longest] if longest else [SHORTEST_CONTEXT]
    lengths = [SHORTEST_CONTEXT]
    while lengths[-1] * 2 < longest:
        lengths.append(lengths[-1] * 2)
    return [*lengths, longest]
