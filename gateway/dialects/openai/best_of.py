"""The best of more completions than were asked for."""

import math
from dataclasses import replace

from gateway.core.events import Completion
from gateway.dialects.openai.openai_requests import CompletionBody


def tried(body: CompletionBody) -> int:
    """Completions of each prompt that are generated."""
    return max(body.best_of or 1, body.n or 1)


def best_choices(body: CompletionBody, completions: list[Completion]) -> list[Completion]:
    """For each prompt the `n` whose tokens are the likeliest on average, the best one first."""
    wanted = body.n or 1
    if tried(body) == wanted:
        return completions
    groups = [completions[start : start + tried(body)] for start in range(0, len(completions), tried(body))]
    best = [each for group in groups for each in sorted(group, key=mean_logprob, reverse=True)[:wanted]]
    return best if body.logprobs is not None else [replace(each, logprobs=None) for each in best]


def mean_logprob(completion: Completion) -> float:
    """Of the tokens that were generated, not of an echoed prompt's. Where there are none, no completion is worse."""
    count = completion.finished.statistics.predicted_tokens
    if not count or not completion.logprobs:
        return -math.inf
    return sum(token.logprob or 0.0 for token in completion.logprobs[-count:]) / count
