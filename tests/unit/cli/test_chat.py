import json

import pytest

from atelier.cli.chat import choose_model, whole_prompt
from atelier.cli.output import Failure
from tests.support.command.cli_facts import KEY, answer, loaded, model, piece
from tests.support.command.cli_server import Reply, ScriptedServer
from tests.unit.cli.conftest import Atelier

PATH = "/api/v0/chat/completions"


@pytest.fixture(autouse=True)
def chatting_server(server: ScriptedServer) -> ScriptedServer:
    server.answers("GET /api/v1/models", {"models": [loaded()]})
    return server.answers(f"POST {PATH}", Reply(events=answer("Hel", "lo!")))


def test_a_pipe_gets_the_plain_text_of_the_answer(server: ScriptedServer, atelier: Atelier) -> None:
    result = atelier("chat", KEY, "-p", "Hi")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello!\n", "")
    assert server.bodies(PATH) == [{"model": KEY, "messages": [{"role": "user", "content": "Hi"}], "stream": True}]


def test_the_flags_become_the_request(server: ScriptedServer, atelier: Atelier) -> None:
    atelier("chat", KEY, "-p", "Hi", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "5", "--seed", "7")
    (body,) = server.bodies(PATH)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0, 5, 7)
    assert "reasoning_budget" not in body


@pytest.mark.parametrize("budget", [0, 256, -1])
def test_the_budget_of_reasoning_is_a_flag(server: ScriptedServer, atelier: Atelier, budget: int) -> None:
    atelier("chat", KEY, "-p", "Hi", "--reasoning-budget", str(budget))
    assert server.bodies(PATH)[0]["reasoning_budget"] == budget


def test_standard_input_is_appended_to_the_prompt(server: ScriptedServer, atelier: Atelier) -> None:
    atelier("chat", "-p", "Sum this up:", piped="one\ntwo\n")
    assert server.bodies(PATH)[0]["messages"][0]["content"] == "Sum this up:\n\none\ntwo"


def test_standard_input_alone_is_a_prompt(server: ScriptedServer, atelier: Atelier) -> None:
    assert atelier("chat", piped="Hi\n").stdout == "Hello!\n"
    assert whole_prompt(None, "Hi\n") == "Hi"


def test_no_prompt_at_all_is_a_usage_error(server: ScriptedServer, atelier: Atelier) -> None:
    assert atelier("chat").exit_code == 2
    assert server.bodies(PATH) == []


def test_stats_are_lm_studios_one_per_line(atelier: Atelier) -> None:
    assert atelier("chat", "-p", "Hi", "--stats").stdout.splitlines() == [
        "Hello!",
        "",
        "stopReason: eosFound",
        "tokensPerSecond: 41.25",
        "numGpuLayers: 0",
        "timeToFirstTokenSec: 0.12",
        "totalTimeSec: 0.42",
        "promptTokensCount: 9",
        "predictedTokensCount: 12",
        "totalTokensCount: 21",
    ]


def test_stats_name_the_stop_string_that_was_found(server: ScriptedServer, atelier: Atelier) -> None:
    found = answer("Hi", stop_reason="stopStringFound", stop_string="\n\n")
    server.answers(f"POST {PATH}", Reply(events=found))
    lines = atelier("chat", "-p", "Hi", "--stats").stdout.splitlines()
    assert lines[2:4] == ["stopReason: stopStringFound", 'stopString: "\\n\\n"']


def test_stats_report_the_draft_model_and_its_draft_tokens(server: ScriptedServer, atelier: Atelier) -> None:
    counts = {f"{kind}_draft_tokens_count": number for number, kind in enumerate(("ignored", "rejected", "accepted"))}
    found = answer("Hi", draft_model="acme/small", total_draft_tokens_count=3, **counts)
    server.answers(f"POST {PATH}", Reply(events=found))
    assert atelier("chat", "-p", "Hi", "--stats").stdout.splitlines()[-5:] == [
        "usedDraftModelKey: acme/small",
        "totalDraftTokensCount: 3",
        "acceptedDraftTokensCount: 2",
        "rejectedDraftTokensCount: 1",
        "ignoredDraftTokensCount: 0",
    ]


def test_json_holds_the_answer_and_its_stats(atelier: Atelier) -> None:
    reply = json.loads(atelier("chat", "-p", "Hi", "--stats", "--json").stdout)
    assert (reply["model"], reply["content"], reply["finish_reason"]) == (KEY, "Hello!", "stop")
    assert (reply["stats"]["stopReason"], reply["stats"]["totalTokensCount"]) == ("eosFound", 21)


def test_the_beginning_of_an_answer_is_sent_and_shown_with_the_rest(server: ScriptedServer, atelier: Atelier) -> None:
    assert atelier("chat", "-p", "Hi", "--prefill", "Well, ").stdout == "Well, Hello!\n"
    assert json.loads(atelier("chat", "-p", "Hi", "--prefill", "Well, ", "--json").stdout)["content"] == "Well, Hello!"
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, "}]
    assert [body["messages"] for body in server.bodies(PATH)] == [begun, begun]


def test_the_beginning_of_an_answer_needs_a_question(server: ScriptedServer, atelier: Atelier) -> None:
    result = atelier("chat", "--prefill", "Well, ", piped="")
    assert (result.exit_code, server.bodies(PATH)) == (2, [])


def test_an_error_within_the_answer_is_reported_with_an_exit_code(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(f"POST {PATH}", Reply(events=[piece("Hel"), {"error": {"message": "The worker ended."}}]))
    result = atelier("chat", "-p", "Hi")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "Hel\n", "atelier: The worker ended.\n")


def test_an_answer_without_an_end_fails(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(f"POST {PATH}", Reply(events=[piece("Hel")]))
    assert atelier("chat", "-p", "Hi").stderr == "atelier: The connection closed before the end of the answer.\n"


def test_a_rejected_chat_says_why(server: ScriptedServer, atelier: Atelier) -> None:
    server.refuses(f"POST {PATH}", 503, "The server has as much work queued as it accepts; try again.")
    result = atelier("chat", "-p", "Hi")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "try again" in result.stderr


def test_the_loaded_model_answers_when_none_is_named() -> None:
    assert choose_model([model("a/b"), loaded("c/d")]) == "c/d"


def test_the_only_model_answers_when_none_is_loaded() -> None:
    assert choose_model([model("a/b"), model("e/f", type="embedding")]) == "a/b"


def test_several_models_with_none_loaded_require_a_name() -> None:
    with pytest.raises(Failure, match="name one of a/b, c/d"):
        choose_model([model("a/b"), model("c/d")])


def test_no_model_at_all_says_how_to_get_one() -> None:
    with pytest.raises(Failure, match="atelier import FILE"):
        choose_model([])


def test_mcp_servers_are_requested_and_their_calls_shown(server: ScriptedServer, atelier: Atelier) -> None:
    head = {"index": 0, "id": "c", "type": "mcp_call", "server_label": "files", "name": "read", "arguments": ""}
    shown = [head, {"index": 0, "arguments": '{"path": '}, {"index": 0, "arguments": '"n.txt"}'}]
    ended = {"index": 0, "status": "completed", "output": "The kettle\nis blue. " * 20, "error": None}
    calls = [{"model": KEY, "choices": [{"index": 0, "delta": {"mcp_calls": [each]}}]} for each in (*shown, ended)]
    server.answers(f"POST {PATH}", Reply(events=[*calls, *answer("Blue.")]))
    result = atelier("chat", KEY, "-p", "Which colour?", "--mcp", "files")
    assert result.stdout == "Blue.\n"
    assert result.stderr.startswith('files: read {"path": "n.txt"} -> The kettle is blue. The kettle')
    assert len(result.stderr.splitlines()) == 1
    (body,) = server.bodies(PATH)
    assert body["tools"] == [{"type": "mcp", "server_label": "files"}]


def test_a_failed_call_is_reported_and_json_has_the_calls(server: ScriptedServer, atelier: Atelier) -> None:
    call = {"index": 0, "server_label": "files", "name": "read", "arguments": "{}"}
    ended = {"index": 0, "status": "failed", "output": None, "error": "no such \x1b]0;file"}
    calls = [{"model": KEY, "choices": [{"index": 0, "delta": {"mcp_calls": [each]}}]} for each in (call, ended)]
    server.answers(f"POST {PATH}", Reply(events=[*calls, *answer("Sorry.")]))
    assert "failed: no such ]0;file" in atelier("chat", KEY, "-p", "Hi", "--mcp", "files").stderr
    server.answers(f"POST {PATH}", Reply(events=[*calls, *answer("Sorry.")]))
    [shown] = json.loads(atelier("chat", KEY, "-p", "Hi", "--mcp", "files", "--json").stdout)["mcp_calls"]
    assert (shown["name"], shown["status"], shown["error"]) == ("read", "failed", ended["error"])
