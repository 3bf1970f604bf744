"""A conversation on the terminal: it remembers what was said."""

from collections.abc import Callable

import typer

from atelier.cli.failure import Failure
from atelier.cli.markdown import shown_answer
from atelier.cli.output import remark
from atelier.cli.rest_client import JSON, Server
from atelier.cli.streamed_answer import Answer, statistics_lines

HELP = "/clear forgets the conversation, /exit leaves. Ctrl-C stops an answer; twice, it leaves."


class Conversation:
    """The messages so far, and how the model is to answer them."""

    def __init__(self, server: Server, model: str, system: str | None, options: JSON) -> None:
        self._server, self._model, self._options = server, model, options
        self._opening: list[JSON] = [{"role": "system", "content": system}] if system else []
        self.messages: list[JSON] = list(self._opening)

    def ask(self, prompt: str, show: Callable[[str], None], note: Callable[[str], None]) -> Answer:
        """The model's answer; `note` gets a line for each tool that it calls.

        A Ctrl-C ends it early; what came of it is remembered all the same.
        """
        messages = [*self.messages, {"role": "user", "content": prompt}]
        answer = Answer(self._server, {"model": self._model, "messages": messages, **self._options}, note)
        try:
            for piece in answer:
                show(piece)
        finally:
            if answer.text:
                self.messages = [*messages, {"role": "assistant", "content": answer.text}]
        return answer

    def clear(self) -> None:
        self.messages = list(self._opening)


def converse(conversation: Conversation, model: str, stats: bool) -> None:
    """Read, answer, repeat, until /exit, the end of input, or Ctrl-C twice in a row."""
    import readline  # noqa: F401  # gives input() line editing and history

    remark(f"Chatting with {model}. {HELP}")
    stopped = False
    while (line := _read_line(patience=1 if stopped else 2)) not in (None, "/exit"):
        stopped = False
        if line == "/clear":
            conversation.clear()
            remark("Forgotten.")
        elif line:
            stopped = not _answered(conversation, line, stats)


def _read_line(patience: int) -> str | None:
    """What was typed; None at the end of input, or when Ctrl-C was pressed `patience` times."""
    for left in reversed(range(patience)):
        try:
            return input("> ").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            remark("\nCtrl-C again leaves." if left else "")
    return None


def _answered(conversation: Conversation, prompt: str, stats: bool) -> bool:
    """Whether the answer came without being stopped. What the server refuses does not end the conversation."""
    try:
        with shown_answer() as screen:
            answer = conversation.ask(prompt, screen.show, screen.note)
    except KeyboardInterrupt:
        remark("(stopped)")
        return False
    except Failure as failure:
        remark(f"{failure}")
        return True
    if stats:
        typer.echo(statistics_lines(answer.statistics))
    return True
