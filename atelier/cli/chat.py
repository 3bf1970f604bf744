"""`chat`: one question from a script, or a conversation on the terminal."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import typer

from atelier.cli.markdown import shown_answer
from atelier.cli.output import Failure, remark, show_json
from atelier.cli.rest_client import Server
from atelier.cli.streamed_answer import StreamedAnswer, statistics_lines
from atelier.json_types import Json
from atelier.settings.groups import UNLIMITED

HELP = (
    "/continue continues the last answer, /clear starts a new conversation, /exit leaves. "
    "Ctrl-C stops an answer; press it twice to leave."
)

Show = Callable[[str], None]
Answering = Callable[[Show, Show], StreamedAnswer]
"""Shows an answer as it arrives, and notes tool calls."""


class Conversation:
    """The messages so far, and the options of each request."""

    def __init__(self, server: Server, model: str, system: str | None, options: Json) -> None:
        self._server, self._model, self._options = server, model, options
        self._opening: list[Json] = [{"role": "system", "content": system}] if system else []
        self.messages: list[Json] = list(self._opening)

    def ask(self, prompt: str, show: Show, note: Show, begun: str = "") -> StreamedAnswer:
        """The model's answer; `note` receives a line for each tool call. `begun`: its beginning, for the model.

        The text of an answer that is stopped with Ctrl-C stays in the conversation.
        """
        if begun:
            show(begun)
        return self._answer([*self.messages, {"role": "user", "content": prompt}], begun, show, note)

    def resume(self, show: Show, note: Show) -> StreamedAnswer:
        """What the model adds to the last answer. Raises Failure if there is none."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise Failure("There is no answer to continue yet.")
        return self._answer(self.messages[:-1], self.messages[-1]["content"], show, note)

    def _answer(self, asked: list[Json], begun: str, show: Show, note: Show) -> StreamedAnswer:
        """`begun`: the beginning of the answer, which the model continues."""
        opened = [{"role": "assistant", "content": begun}] if begun else []
        body = {"model": self._model, "messages": [*asked, *opened], **self._options}
        answer = StreamedAnswer(self._server, body, note, begun)
        try:
            for piece in answer:
                show(piece)
        finally:
            if answer.text:
                self.messages = [*asked, {"role": "assistant", "content": answer.text}]
        return answer

    def clear(self) -> None:
        self.messages = list(self._opening)


def converse(conversation: Conversation, model: str, stats: bool) -> None:
    """Answer lines of input until /exit, the end of input, or Ctrl-C twice in a row."""
    import readline  # noqa: F401  # gives input() line editing and history

    remark(f"Chatting with {model}. {HELP}")
    stopped = False
    while (line := _read_line(presses=1 if stopped else 2)) not in (None, "/exit"):
        stopped = False
        if line == "/clear":
            conversation.clear()
            remark("New conversation.")
        elif line == "/continue":
            stopped = not _answered(conversation.resume, stats)
        elif line:
            stopped = not _answered(partial(conversation.ask, line), stats)


def _read_line(presses: int) -> str | None:
    """The line that was typed; None at the end of input, or after Ctrl-C was pressed `presses` times."""
    for left in reversed(range(presses)):
        try:
            return input("> ").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            remark("\nPress Ctrl-C again to leave." if left else "")
    return None


def _answered(answering: Answering, stats: bool) -> bool:
    """Whether the answer was not stopped. An error of the server does not end the conversation."""
    try:
        with shown_answer() as screen:
            answer = answering(screen.show, screen.note)
    except KeyboardInterrupt:
        remark("(stopped)")
        return False
    except Failure as failure:
        remark(f"{failure}")
        return True
    if stats:
        typer.echo(statistics_lines(answer.statistics))
    return True


def chat(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Model (default: the loaded one, or the only one)."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Ask this question and exit.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    prefill: Annotated[
        str, typer.Option(metavar="TEXT", help="With a prompt: the beginning of the answer, which the model continues.")
    ] = "",
    temperature: Annotated[float | None, typer.Option(min=0, help="0: always the most likely token.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum tokens of the answer.")] = None,
    reasoning_budget: Annotated[
        int | None, typer.Option(min=UNLIMITED, help="Maximum tokens of reasoning; 0: none, -1: no limit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answer.")] = None,
    mcp: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Server of mcp.json whose tools the model may call; repeatable."),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show statistics after each answer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With a prompt: print the answer as JSON.")] = False,
) -> None:
    question = whole_prompt(prompt, "" if sys.stdin.isatty() else sys.stdin.read())
    if as_json and not question:
        raise typer.BadParameter("--json needs a prompt: use -p")
    if prefill and not question:
        raise typer.BadParameter("--prefill needs a prompt: use -p")
    if not question and not sys.stdin.isatty():
        raise typer.BadParameter("no prompt: use -p, or standard input")
    tools = [{"type": "mcp", "server_label": label} for label in mcp or []] or None
    options = _given(
        temperature=temperature, max_tokens=max_tokens, reasoning_budget=reasoning_budget, seed=seed, tools=tools
    )
    with Server.from_environment() as server:
        chosen = model or choose_model(server.get("/api/v1/models")["models"])
        conversation = Conversation(server, chosen, system, options)
        if question:
            _ask_once(partial(conversation.ask, question, begun=prefill), stats, as_json)
        else:
            converse(conversation, chosen, stats)


def whole_prompt(prompt: str | None, piped: str) -> str:
    """The prompt, followed by the text from standard input."""
    return "\n\n".join(part for part in (prompt, piped.strip()) if part)


def choose_model(models: Sequence[Json]) -> str:
    """The first loaded model that can chat, otherwise the only one. Raises Failure when there are several."""
    able = [model for model in models if model["type"] == "llm"]
    loaded = [model["key"] for model in able if model["loaded_instances"]]
    if loaded or len(able) == 1:
        return str(loaded[0] if loaded else able[0]["key"])
    if not able:
        raise Failure("The server has no model to chat with. Add one with: atelier import FILE")
    raise Failure(f"Several models can chat: name one of {', '.join(model['key'] for model in able)}")


def _ask_once(answering: Answering, stats: bool, as_json: bool) -> None:
    if as_json:
        show_json(answering(lambda piece: None, lambda line: None).as_json())
        return
    with shown_answer() as screen:
        answer = answering(screen.show, screen.note)
    if stats:
        typer.echo("\n" + statistics_lines(answer.statistics))


def _given(**options: object) -> Json:
    return {name: value for name, value in options.items() if value is not None}
