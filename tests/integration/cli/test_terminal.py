"""The command on a real terminal, with a scripted server."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.command.cli_facts import KEY, answer, instance, loaded, piece
from tests.support.command.cli_server import Received, Reply, ScriptedServer, scripted_server
from tests.support.command.cli_terminal import BOUND, CTRL_C, CTRL_D, Terminal, terminal

CHAT = "/api/v0/chat/completions"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as script:
        script.answers("GET /api/v1/models", {"models": [loaded()]})
        script.answers(f"POST {CHAT}", Reply(events=answer("Hello ", "**there**!")))
        yield script


def at(server: ScriptedServer) -> dict[str, str]:
    return {"ATELIER_URL": server.url, "ATELIER_API_KEY": ""}


@pytest.fixture
def chat(server: ScriptedServer) -> Iterator[Terminal]:
    with terminal("chat", environment=at(server)) as screen:
        screen.wait_for_prompt()
        yield screen


def test_markdown_is_rendered(server: ScriptedServer) -> None:
    with terminal("chat", "-p", "Hi", environment=at(server)) as screen:
        assert screen.ended() == 0
        assert "Hello there!" in screen.text
        assert "**" not in screen.text


def test_calls_of_tools_are_reported_between_the_texts(server: ScriptedServer) -> None:
    call = {"index": 0, "server_label": "files", "name": "read", "arguments": "{}"}
    ended = {"index": 0, "status": "completed", "output": "\x1b[31mred", "error": None}
    calls = [{"model": KEY, "choices": [{"index": 0, "delta": {"mcp_calls": [each]}}]} for each in (call, ended)]
    server.answers(f"POST {CHAT}", Reply(events=[piece("I **look**."), *calls, *answer("It is *red*.")]))
    with terminal("chat", "-p", "Hi", "--mcp", "files", environment=at(server)) as screen:
        assert screen.ended() == 0
        assert screen.text.index("I look.") < screen.text.index("files: read {} -> [31mred")
        assert screen.text.index("-> [31mred") < screen.text.index("It is red.")


def test_a_conversation_remembers_until_it_is_cleared(server: ScriptedServer, chat: Terminal) -> None:
    chat.type("one\n")
    chat.wait_for_prompt(2)
    chat.type("two\n")
    chat.wait_for_prompt(3)
    chat.type("/clear\n")
    chat.wait_for_prompt(4)
    chat.type("three\n")
    chat.wait_for_prompt(5)
    chat.type("/exit\n")
    assert chat.ended() == 0
    said = [[message["content"] for message in body["messages"]] for body in server.bodies(CHAT)]
    assert said == [["one"], ["one", "Hello **there**!", "two"], ["three"]]


def test_an_answer_that_was_stopped_is_continued(server: ScriptedServer, chat: Terminal) -> None:
    chat.type("/continue\n")
    chat.wait_for("no answer to continue")
    chat.wait_for_prompt(2)
    server.answers(f"POST {CHAT}", Reply(events=answer("One,")))
    chat.type("count\n")
    chat.wait_for_prompt(3)
    for number, more in enumerate((" two", " three"), 4):
        server.answers(f"POST {CHAT}", Reply(events=answer(more)))
        chat.type("/continue\n")
        chat.wait_for_prompt(number)
    chat.type("why?\n")
    chat.wait_for_prompt(6)
    said = [[message["content"] for message in body["messages"]] for body in server.bodies(CHAT)]
    assert said == [
        ["count"],
        ["count", "One,"],
        ["count", "One, two"],
        ["count", "One, two three", "why?"],
    ]


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(server: ScriptedServer, chat: Terminal) -> None:
    never = threading.Event()
    server.answers(f"POST {CHAT}", Reply(events=[piece("One, two"), never, piece(", three"), *[piece("!")] * 100]))
    chat.type("count\n")
    chat.wait_for("One, two")
    chat.type(CTRL_C)
    chat.wait_for_prompt(2)
    never.set()
    assert server.client_left.wait(BOUND)
    server.answers(f"POST {CHAT}", Reply(events=answer("Four")))
    chat.type("go on\n")
    chat.wait_for("Four")
    contents = [message["content"] for message in server.bodies(CHAT)[-1]["messages"]]
    assert contents == ["count", "One, two", "go on"]
    chat.wait_for_prompt(3)
    chat.type(CTRL_D)
    assert chat.ended() == 0


def test_ctrl_c_twice_exits(chat: Terminal) -> None:
    chat.type(CTRL_C)
    chat.wait_for("Ctrl-C again to leave")
    chat.wait_for_prompt(2)
    chat.type(CTRL_C)
    assert chat.ended() == 0


def test_a_rejected_request_does_not_end_the_conversation(server: ScriptedServer, chat: Terminal) -> None:
    server.refuses(f"POST {CHAT}", 503, "Try again.")
    chat.type("Hi\n")
    chat.wait_for("Try again.")
    chat.wait_for_prompt(2)
    chat.type("/exit\n")
    assert chat.ended() == 0


def test_a_load_shows_its_progress(server: ScriptedServer) -> None:
    shown = threading.Event()
    reply = Reply({"type": "llm", "instance_id": KEY, "load_time_seconds": 1.0, "status": "loaded"})

    def load_until_shown(_: Received) -> Reply:
        shown.wait(BOUND)
        return reply

    server.answers("GET /api/v1/instances", {"instances": [instance(state="loading", load_progress=0.42)]})
    server.answers("POST /api/v1/models/load", load_until_shown)
    with terminal("load", KEY, environment=at(server), width=120) as screen:
        screen.wait_for("42%")
        shown.set()
        assert screen.ended() == 0
        assert f"Loaded {KEY} in 1.0 s" in screen.text


@pytest.mark.parametrize("width", [80, 160])
def test_ps_fits_the_terminal(server: ScriptedServer, width: int) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance(), instance(f"{KEY}:2")]})
    with terminal("ps", environment=at(server), width=width) as screen:
        assert screen.ended() == 0
        lines = screen.text.splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].split()[0] == (KEY if width == 80 else "ID")
