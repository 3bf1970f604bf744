import json

from tests.support.command.cli_facts import KEY, instance
from tests.support.command.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier


def test_ps_shows_one_line_per_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance()]})
    titles, row = atelier("ps").stdout.splitlines()
    assert titles.split() == (
        ["ID", "MODEL", "STATE", "PIN", "PID", "CONTEXT", "PARALLEL", "ACTIVE", "QUEUED", "CACHE", "REPRODUCIBLE"]
    )
    assert row.split() == [
        *(KEY, KEY),
        *["ready", "cpu", "cores", "0-1", "4711", "4096", "8", "1", "0", "3.1", "MB", "of", "1.1", "GB", "no"],
    ]


def test_ps_shows_the_progress_of_a_load(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance(state="loading", load_progress=0.42)]})
    assert "loading 42%" in atelier("ps").stdout


def test_ps_shows_why_an_instance_failed(server: ScriptedServer, atelier: Atelier) -> None:
    failed = instance(state="failed", error={"code": "insufficient_memory", "message": "Needs 9 GB."}, pid=0)
    server.answers("GET /api/v1/instances", {"instances": [failed]})
    assert atelier("ps").stderr == f"{KEY}: Needs 9 GB.\n"


def test_ps_json_is_the_servers_reply(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance()]})
    assert json.loads(atelier("ps", "--json").stdout) == {"instances": [instance()]}


SEQUENCE = {
    "request_id": "req-1",
    "choice": 0,
    "state": "decode",
    "priority": -2,
    "prompt_tokens": 900,
    "done_tokens": 900,
    "cached_tokens": 640,
    "predicted_tokens": 17,
    "age_seconds": 3.25,
}


def test_ps_lists_the_sequences_of_each_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance("a/b:2"), instance("idle")]})
    server.answers("GET /api/v1/instances/a/b%3A2/sequences", {"sequences": [SEQUENCE]})
    server.answers("GET /api/v1/instances/idle/sequences", {"sequences": []})
    *_, titles, row = atelier("ps", "-v").stdout.splitlines()
    assert titles.split()[:3] == ["REQUEST", "INSTANCE", "STATE"]
    assert row.split() == ["req-1#0", "a/b:2", "decode", "-2", "900", "900", "640", "17", "3.2", "s"]


def test_ps_json_has_the_sequences_with_their_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance("a")]})
    server.answers("GET /api/v1/instances/a/sequences", {"sequences": [SEQUENCE]})
    reply = json.loads(atelier("ps", "--sequences", "--json").stdout)
    assert reply["instances"][0]["sequences"] == [SEQUENCE]


def test_ps_shows_the_rest_when_a_worker_does_not_answer(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance("gone"), instance("stuck"), instance("c")]})
    server.refuses("GET /api/v1/instances/gone/sequences", 404, "No such instance.")
    server.refuses("GET /api/v1/instances/stuck/sequences", 504, "It took longer than it may.")
    server.answers("GET /api/v1/instances/c/sequences", {"sequences": [SEQUENCE]})
    result = atelier("ps", "-v")
    assert result.exit_code == 0
    assert "req-1#0" in result.stdout
    assert result.stderr == "stuck: It took longer than it may.\n"


def test_ps_of_an_idle_server_says_how_to_load(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": []})
    assert "atelier load MODEL" in atelier("ps").stderr


def test_unload_takes_the_named_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("POST /api/v1/models/unload", {"instance_id": "a"})
    assert atelier("unload", "a").stdout == "Unloaded a\n"
    assert server.bodies("/api/v1/models/unload") == [{"instance_id": "a"}]


def test_unload_without_a_name_takes_the_only_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance("a")]})
    server.answers("POST /api/v1/models/unload", {"instance_id": "a"})
    assert json.loads(atelier("unload", "--json").stdout) == {"unloaded": ["a"]}


def test_unload_without_a_name_does_not_choose_among_several(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance("a"), instance("b")]})
    result = atelier("unload")
    assert result.exit_code == 1
    assert "name one of a, b, or use --all" in result.stderr


def test_unload_all_takes_every_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance("a"), instance("b")]})
    server.answers("POST /api/v1/models/unload", {"instance_id": "?"})
    assert atelier("unload", "--all").stdout == "Unloaded a\nUnloaded b\n"


def test_unload_takes_a_name_or_all(atelier: Atelier) -> None:
    assert atelier("unload", "a", "--all").exit_code == 2
