"""What one choice generates: its tokens, the text that they make, and why it ends."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from atelier.generation_types import StopReason, ToolCallPiece
from worker.engine.constraint.constraint_matcher import Matcher
from worker.engine.interface import Delta, TokenLogprob
from worker.engine.model.context import Context
from worker.engine.model.vocabulary import Detokenizer, Vocabulary
from worker.engine.prompt.prompt_preparation import Prepared
from worker.engine.sampling.logprobs import token_logprobs
from worker.engine.sampling.sampler import Sampler
from worker.engine.sampling.stop_strings import StopScanner
from worker.output.completion_parts import AnswerText, Part, Reasoning


class Completion:
    """The tokens after the prompt. `close` frees the sampler.

    `pending` are the tokens that are decided and not in the KV cache yet: the sampled one, and after it those that
    a constraint leaves no choice about.
    """

    def __init__(self, choice: int, prepared: Prepared, seed: int, vocabulary: Vocabulary) -> None:
        request = prepared.request
        self.tokens: list[int] = []
        self.pending: list[int] = []
        self.limit = prepared.limit  # of tokens
        self.reasoning_tokens = 0
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
        self._has_calls = False

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self._stop.found

    @property
    def draft_room(self) -> int:
        """How many draft tokens could be checked after the pending one.

        None with a constraint, whose forced tokens are not sampled, nor where log-probabilities are wanted.
        """
        if self._matcher is not None or self._top_logprobs is not None or len(self.pending) != 1:
            return 0
        return self.limit - len(self.tokens) - 1

    def sample(self, context: Context, index: int) -> tuple[Sequence[Delta], StopReason | None]:
        """Draw the next token from the logits of the last call's token `index`; what it adds, and the end if it is."""
        logits = context.logits(index)
        top = self._top_logprobs
        raw = logits.copy() if top is not None else None
        if self._matcher is not None:
            self._matcher.apply(logits)
        token = self._sampler.sample(context, index)
        if raw is None or top is None:
            return self._take(token, ())
        return self._take(token, (rate_token(self._vocabulary, raw, token, top),))

    def _take(self, token: int, logprobs: Sequence[TokenLogprob]) -> tuple[Sequence[Delta], StopReason | None]:
        """Add a sampled token, and those that a constraint forces after it."""
        before = len(self.tokens)
        self.pending = []
        shown, end = self._advance(token)
        if end is None and self._matcher is not None and not logprobs:
            more, end = self._take_forced(self._matcher)
            shown += more
        parts = self._parser.push(shown if end is None else shown + self._rest())
        if end is None and self._parser.complete:
            end = StopReason.EOS_FOUND
        if end is not None:
            parts = [*parts, *self._parser.flush()]
        taken = len(self.tokens) - before
        self._note_parts(parts, taken)
        deltas = self._deltas(parts, taken, logprobs)
        if end is None:
            return deltas, None
        if self._has_calls and end is StopReason.EOS_FOUND:
            end = StopReason.TOOL_CALLS
        return [each for each in deltas if each.tokens or each.text or each.reasoning or each.tool_calls], end

    def _note_parts(self, parts: Sequence[Part], tokens: int) -> None:
        if parts and isinstance(parts[-1], Reasoning):
            self.reasoning_tokens += tokens
        self._has_calls = self._has_calls or any(isinstance(part, ToolCallPiece) for part in parts)

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

    def _take_forced(self, matcher: Matcher) -> tuple[str, StopReason | None]:
        shown = ""
        for token in matcher.forced():
            self._sampler.accept(token)
            more, end = self._advance(token)
            shown += more
            if end is not None:
                return shown, end
        return shown, None

    def _advance(self, token: int) -> tuple[str, StopReason | None]:
        """Add one token: the text that it makes certain, and the reason if it is the last."""
        complete = self._matcher is not None and not self._matcher.consume(token)
        if self._vocabulary.is_end(token):
            return "", StopReason.EOS_FOUND
        self.pending.append(token)
        self.tokens.append(token)
        shown = self._stop.push(self._detokenizer.push(token))
        if self._stop.found is not None:
            return shown, StopReason.STOP_STRING_FOUND
        if complete:
            return shown, StopReason.EOS_FOUND
        if len(self.tokens) >= self.limit:
            return shown, self._limit_reason()
        return shown, None

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
