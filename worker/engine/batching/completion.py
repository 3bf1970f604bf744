"""What one choice generates: its tokens, the text that they make, and why it ends."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from atelier.generation_types import StopReason, ToolCallPiece
from worker.engine.constraint.constraint_matcher import MOST_FORCED
from worker.engine.interface import Delta, TokenLogprob
from worker.engine.model.context import Context
from worker.engine.model.vocabulary import Detokenizer, Vocabulary
from worker.engine.prompt.prompt_preparation import Prepared
from worker.engine.sampling.logprobs import token_logprobs
from worker.engine.sampling.reasoning_budget import ReasoningBudget
from worker.engine.sampling.sampler import Sampler
from worker.engine.sampling.stop_strings import StopScanner
from worker.output.completion_parts import AnswerText, Part, Reasoning
from worker.output.reasoning_section import ReasoningCounter


class Completion:
    """The tokens after the prompt. `close` frees the sampler.

    `pending` are the tokens that are decided and not in the KV cache yet: the sampled one, and after it those that
    a constraint leaves no choice about, or that end the reasoning at its budget.
    """

    def __init__(self, choice: int, prepared: Prepared, seed: int, vocabulary: Vocabulary) -> None:
        request = prepared.request
        self.tokens: list[int] = []
        self.pending: list[int] = []
        self.limit = prepared.limit  # of tokens
        self._choice = choice
        self._limited_by_context = prepared.limited_by_context
        self._vocabulary = vocabulary
        self._matcher = prepared.matcher.copy() if prepared.matcher else None
        self._sampler = Sampler(request.sampling, seed, vocabulary)
        self._sampler.read_prompt([token for token in prepared.tokens if token >= 0])
        self._top_logprobs = request.logprobs
        self._detokenizer = Detokenizer(vocabulary, prepared.marks)
        self._stop = StopScanner(request.stop)
        self._parser = prepared.create_parser()
        # Reads the text at once, where the other one waits for what may begin a stop string.
        self._observer = prepared.create_parser() if request.stop else self._parser
        ends, limit = prepared.reasoning_ends, prepared.reasoning_limit
        self._reasoning = ReasoningCounter(ends, inside=self._observer.in_reasoning) if ends else None
        self._budget = ReasoningBudget(limit, self._reasoning, vocabulary) if limit and self._reasoning else None
        self._has_calls = False

    @property
    def reasoning_tokens(self) -> int:
        return self._reasoning.tokens if self._reasoning else 0

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self._stop.found

    @property
    def draft_room(self) -> int:
        """How many draft tokens could be checked after the pending ones: none where log-probabilities are wanted."""
        return 0 if self._top_logprobs is not None else self.limit - len(self.tokens) - 1

    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may come next: up to an end of the text, and as far as the constraint lets them."""
        to_end = next((at for at, token in enumerate(tokens) if self._vocabulary.is_end(token)), len(tokens))
        return to_end if self._matcher is None else self._matcher.acceptable(tokens[:to_end])

    def sample(self, context: Context, index: int) -> tuple[Sequence[Delta], StopReason | None]:
        """Draw the next token from the logits of the last call's token `index`; what it adds, and the end if it is."""
        logits = context.logits(index)
        top = self._top_logprobs
        raw = logits.copy() if top is not None else None
        token = self._next_token(context, index)
        if raw is None or top is None:
            return self._take(token, ())
        return self._take(token, (rate_token(self._vocabulary, raw, token, top),))

    def _next_token(self, context: Context, index: int) -> int:
        """The token that the budget forces; otherwise the drawn one, unless the reasoning has no room for it."""
        budget = self._budget
        if budget is not None and (forced := budget.next_forced()) is not None:
            self._sampler.accept(forced)
            return forced
        logits = context.logits(index)
        if self._matcher is not None:
            self._matcher.apply(logits)  # allows no second reasoning
        elif budget is not None and (forbidden := budget.forbidden(self.tokens)) is not None:
            logits[forbidden] = -np.inf
        token = self._sampler.sample(context, index)
        if budget is not None and budget.ends_before(self._detokenizer.lacking(token)):
            return self._next_token(context, index)
        return token

    def _take(self, token: int, logprobs: Sequence[TokenLogprob]) -> tuple[Sequence[Delta], StopReason | None]:
        """Add a token, and those that are forced after it."""
        before = len(self.tokens)
        self.pending = []
        parts, end = self._advance(token)
        if end is None and not logprobs:
            end = self._take_forced(parts)
        if end is not None:
            parts += self._parser.push(self._rest())
        elif self._parser.complete:
            end = StopReason.EOS_FOUND
        if end is not None:
            parts += self._parser.flush()
        self._has_calls = self._has_calls or any(isinstance(part, ToolCallPiece) for part in parts)
        deltas = self._deltas(parts, len(self.tokens) - before, logprobs)
        if end is None:
            return deltas, None
        if self._has_calls and end is StopReason.EOS_FOUND:
            end = StopReason.TOOL_CALLS
        return [each for each in deltas if each.tokens or each.text or each.reasoning or each.tool_calls], end

    def _deltas(self, parts: Sequence[Part], tokens: int, logprobs: Sequence[TokenLogprob]) -> list[Delta]:
        """The parts in their order: a delta holds reasoning, then text, then calls. The first counts the tokens."""
        if not parts:
            return [Delta(self._choice, "", tokens, logprobs)]
        if len(parts) == 1 and isinstance(only := parts[0], AnswerText):
            return [Delta(self._choice, only.text, tokens, logprobs)]
        deltas = [Delta(self._choice, "", tokens, logprobs)]
        for part in parts:
            last = deltas[-1]
            match part:
                case Reasoning(text) if not last.text and not last.tool_calls:
                    deltas[-1] = replace(last, reasoning=last.reasoning + text)
                case AnswerText(text) if not last.tool_calls:
                    deltas[-1] = replace(last, text=last.text + text)
                case ToolCallPiece():
                    deltas[-1] = replace(last, tool_calls=[*last.tool_calls, part])
                case Reasoning(text):
                    deltas.append(Delta(self._choice, "", 0, reasoning=text))
                case AnswerText(text):
                    deltas.append(Delta(self._choice, text, 0))
        return deltas

    def _take_forced(self, parts: list[Part]) -> StopReason | None:
        """Add the tokens that are forced at this point; adds to the parts what their text makes certain."""
        for token in self._forced():
            self._sampler.accept(token)
            more, end = self._advance(token)
            parts += more
            if end is not None:
                return end
        return None

    def _forced(self) -> Iterator[int]:
        """Those that end the reasoning, then those that a constraint leaves no choice about; at most MOST_FORCED."""
        room = MOST_FORCED
        while room and self._budget is not None and (token := self._budget.next_forced()) is not None:
            yield token
            room -= 1
        if room and self._matcher is not None:
            yield from self._matcher.forced()[:room]

    def _advance(self, token: int) -> tuple[list[Part], StopReason | None]:
        """Add one token: the parts that it makes certain, and the reason if it is the last."""
        complete = self._matcher is not None and not self._matcher.consume(token)
        if self._vocabulary.is_end(token):
            return [], StopReason.EOS_FOUND
        self.pending.append(token)
        self.tokens.append(token)
        parts = self._read(self._detokenizer.push(token))
        if self._stop.found is not None:
            return parts, StopReason.STOP_STRING_FOUND
        if complete:
            return parts, StopReason.EOS_FOUND
        if len(self.tokens) >= self.limit:
            return parts, self._limit_reason()
        return parts, None

    def _read(self, text: str) -> list[Part]:
        """The parts that are certain after a token's text."""
        parts = list(self._parser.push(self._stop.push(text)))
        if self._observer is not self._parser:
            self._observer.push(text)
        if self._reasoning is not None:
            self._reasoning.add(text, inside=self._observer.in_reasoning)
        return parts

    def _rest(self) -> str:
        """The text that was held back, at the end."""
        if self._stop.found is not None:
            return ""
        return self._stop.push(self._detokenizer.flush()) + self._stop.flush()

    def _limit_reason(self) -> StopReason:
        if self._limited_by_context:
            return StopReason.CONTEXT_LENGTH_REACHED
        return StopReason.MAX_PREDICTED_TOKENS_REACHED

    def close(self) -> None:
        self._sampler.close()


def rate_token(vocabulary: Vocabulary, logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """The token's log-probability among these logits [vocabulary], with those of the `top` likeliest tokens."""
    own, likeliest = token_logprobs(logits, token, top)
    alternatives = [TokenLogprob(each, vocabulary.piece(each), value) for each, value in likeliest]
    return TokenLogprob(token, vocabulary.piece(token), own, alternatives)
