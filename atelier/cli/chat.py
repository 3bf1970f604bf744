"""A conversation on the terminal: it remembers what was said.
`chat`: one question from a script, or a conversation on the terminal."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from atelier.cli.markdown import shown_answer
from atelier.cli.output import Failure, remark, show_json
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


def chat(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Which model; otherwise the loaded one, or the only one.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Ask this and leave.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 takes the most likely token.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answer.")] = None,
    mcp: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="MCP server of mcp.json whose tools the model may call.")
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show statistics after each answer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With a prompt: print the answer as JSON.")] = False,
) -> None:
    question = whole_prompt(prompt, "" if sys.stdin.isatty() else sys.stdin.read())
    if as_json and not question:
        raise typer.BadParameter("--json needs a prompt: give one with -p")
    if not question and not sys.stdin.isatty():
        raise typer.BadParameter("no prompt: give one with -p, or on standard input")
    tools = [{"type": "mcp", "server_label": label} for label in mcp or []] or None
    options = _given(temperature=temperature, max_tokens=max_tokens, seed=seed, tools=tools)
    with Server.from_environment() as server:
        chosen = model or choose_model(server.get("/api/v1/models")["models"])
        conversation = Conversation(server, chosen, system, options)
        if question:
            _ask_once(conversation, question, stats, as_json)
        else:
            converse(conversation, chosen, stats)


def whole_prompt(prompt: str | None, piped: str) -> str:
    """What is asked: the prompt, and below it what was piped in."""
    return "\n\n".join(part for part in (prompt, piped.strip()) if part)


def choose_model(models: Sequence[dict[str, Any]]) -> str:
    """The first loaded model that can chat, or else the only one."""
    able = [model for model in models if model["type"] == "llm"]
    loaded = [model["key"] for model in able if model["loaded_instances"]]
    if loaded or len(able) == 1:
        return str(loaded[0] if loaded else able[0]["key"])
    if not able:
        raise Failure("The server has no model to chat with. Give it one with: atelier import FILE")
    raise Failure(f"Which model? Name one of: {', '.join(model['key'] for model in able)}")


def _ask_once(conversation: Conversation, question: str, stats: bool, as_json: bool) -> None:
    if as_json:
        show_json(conversation.ask(question, lambda piece: None, lambda line: None).as_json())
        return
    with shown_answer() as screen:
        answer = conversation.ask(question, screen.show, screen.note)
    if stats:
        typer.echo("\n" + statistics_lines(answer.statistics))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
