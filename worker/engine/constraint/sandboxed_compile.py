"""Grammars are compiled in a process of their own first: llguidance cannot be interrupted, and some crash it.

Measured with llguidance 1.9.1: a chain of a few thousand references overflows the stack, 60 intersected
patterns or 400 patternProperties compile for more than ten seconds.
"""

import contextlib
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

CPU_SECONDS = 1.0
WALL_SECONDS = 30.0  # for a machine that is busy with other things
MEMORY_BYTES = 2 * 2**30
STACK_BYTES = 4 * 2**20  # half of what the threads of a worker have

# One mask takes at most some 50 ms under these, and a lexer at most some 50 MB.
LIMITS: dict[str, Any] = {"step_lexer_fuel": 100_000, "max_lexer_states": 50_000, "verbose_errors": False}


@dataclass(frozen=True, slots=True)
class Pieces:
    """A vocabulary as llguidance needs it."""

    tokens: list[bytes]
    special: list[int]
    eos: list[int]


class GrammarTrial:
    """Owns the process that tries grammars; started at the first one, and again when one has ended it."""

    def __init__(self, pieces: Callable[[], Pieces]) -> None:
        self._pieces = pieces
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False  # the process has the pieces

    def error(self, grammar: str) -> str | None:
        """What is wrong with the grammar, or None."""
        process = self.start()
        watch = threading.Timer(WALL_SECONDS, process.kill)
        watch.start()
        try:
            return self._ask(process, grammar)
        except (EOFError, OSError, pickle.UnpicklingError):
            self.close()
            return "it takes too much time or memory to compile"
        finally:
            watch.cancel()

    def _ask(self, process: "subprocess.Popen[bytes]", grammar: str) -> str | None:
        assert process.stdin
        assert process.stdout
        if not self._told:
            pickle.dump(self._pieces(), process.stdin)
            self._told = True
        pickle.dump(grammar, process.stdin)
        process.stdin.flush()
        answer: str | None = pickle.load(process.stdout)
        return answer

    def start(self) -> "subprocess.Popen[bytes]":
        """The process, which takes a moment to be ready: worth calling before there is a grammar."""
        if self._process is None:
            command = [sys.executable, "-m", "worker.engine.constraint.sandboxed_compile"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._told = False
        return self._process

    def close(self) -> None:
        """End the process. It also ends by itself when its worker does."""
        if (process := self._process) is None:
            return
        self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def start_matcher(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    return LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(**LIMITS))


class _Vocabulary:
    """What llguidance's TokenizerWrapper asks of a tokenizer."""

    def __init__(self, pieces: Pieces) -> None:
        self.tokens = pieces.tokens
        self.special_token_ids = pieces.special
        self.eos_token_id = pieces.eos[0]
        self.bos_token_id = None
        self.tokenizer: LLTokenizer | None = None

    def __call__(self, text: bytes) -> Sequence[int]:
        """Not as the model would, which does not matter for whether a grammar compiles."""
        return self.tokenizer.greedy_tokenize(text.decode(errors="replace")) if self.tokenizer else []


def _tokenizer(pieces: Pieces) -> LLTokenizer:
    vocabulary = _Vocabulary(pieces)
    vocabulary.tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=pieces.eos)
    return vocabulary.tokenizer


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for limit, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_STACK, STACK_BYTES)):
        with contextlib.suppress(ValueError, OSError):  # not every system has them
            resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    tokenizer = _tokenizer(pickle.load(source))
    while True:
        try:
            grammar = pickle.load(source)
        except EOFError:
            return
        pickle.dump(_try(tokenizer, grammar), answers)
        answers.flush()


def _try(tokenizer: LLTokenizer, grammar: str) -> str | None:
    """Ends the process when it takes too long: that is what SIGPROF does."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    matcher = start_matcher(tokenizer, grammar)
    if not matcher.is_error():
        matcher.compute_bitmask()
    signal.setitimer(signal.ITIMER_PROF, 0)
    return matcher.get_error() if matcher.is_error() else None


if __name__ == "__main__":
    main()
