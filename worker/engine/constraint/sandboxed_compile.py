"""Compiles grammars in a separate process first: llguidance cannot be interrupted, and some grammars crash it.

Measured with llguidance 1.9.1: a chain of a few thousand references overflows the stack; 60 intersected
patterns or 400 patternProperties take more than ten seconds to compile.
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

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

CPU_SECONDS = 1.0
WALL_SECONDS = 30.0  # the machine may be busy with other things
MEMORY_BYTES = 2 * 2**30
STACK_BYTES = 4 * 2**20  # half of the stack of a worker's threads

# With these, a mask takes up to some 50 ms, and a lexer up to some 50 MB.
LIMITS = LLParserLimits(step_lexer_fuel=100_000, max_lexer_states=50_000, verbose_errors=False)


@dataclass(frozen=True, slots=True)
class TokenTable:
    """A vocabulary in the form that llguidance needs. `special` and `eos` are token ids."""

    tokens: list[bytes]
    special: list[int]
    eos: list[int]


class CompileSandbox:
    """Owns the process that compiles. It is started for the first grammar, and again after one has ended it."""

    def __init__(self, table: Callable[[], TokenTable]) -> None:
        self._table = table
        self._process: subprocess.Popen[bytes] | None = None
        self._has_table = False  # the process has received it

    def error(self, grammar: str) -> str | None:
        """What is wrong with the grammar; None if it compiles."""
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
        if not self._has_table:
            pickle.dump(self._table(), process.stdin)
            self._has_table = True
        pickle.dump(grammar, process.stdin)
        process.stdin.flush()
        fault: str | None = pickle.load(process.stdout)
        return fault

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process if there is none. It takes a moment to be ready, so call this before there is a grammar."""
        if self._process is None:
            command = [sys.executable, "-m", "worker.engine.constraint.sandboxed_compile"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._has_table = False
        return self._process

    def close(self) -> None:
        """End the process. Without this call it ends when its worker does."""
        if (process := self._process) is None:
            return
        self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def start_matcher(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    return LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)


class _Vocabulary:
    """The attributes of a tokenizer that llguidance's TokenizerWrapper reads."""

    def __init__(self, table: TokenTable) -> None:
        self.tokens = table.tokens
        self.special_token_ids = table.special
        self.eos_token_id = table.eos[0]
        self.bos_token_id = None
        self.tokenizer: LLTokenizer | None = None

    def __call__(self, text: bytes) -> Sequence[int]:
        """Not the model's tokenization, which makes no difference to whether a grammar compiles."""
        return self.tokenizer.greedy_tokenize(text.decode(errors="replace")) if self.tokenizer else []


def _tokenizer(table: TokenTable) -> LLTokenizer:
    vocabulary = _Vocabulary(table)
    vocabulary.tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=table.eos)
    return vocabulary.tokenizer


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for limit, maximum in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_STACK, STACK_BYTES)):
        with contextlib.suppress(ValueError, OSError):  # not every system has these limits
            resource.setrlimit(limit, (maximum, resource.getrlimit(limit)[1]))
    source, results = sys.stdin.buffer, sys.stdout.buffer
    tokenizer = _tokenizer(pickle.load(source))
    while True:
        try:
            grammar = pickle.load(source)
        except EOFError:
            return
        pickle.dump(_compile(tokenizer, grammar), results)
        results.flush()


def _compile(tokenizer: LLTokenizer, grammar: str) -> str | None:
    """What is wrong with the grammar. SIGPROF ends the process when this takes too long."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    matcher = start_matcher(tokenizer, grammar)
    if not matcher.is_error():
        matcher.compute_bitmask()
    signal.setitimer(signal.ITIMER_PROF, 0)
    return matcher.get_error() if matcher.is_error() else None


if __name__ == "__main__":
    main()
