import json

from tests.support.cli_facts import KEY, instance
from tests.support.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier


def test_ps_shows_one_line_per_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance()]})
    titles, row = atelier("ps").stdout.splitlines()
    assert titles.split() == ["ID", "MODEL", "STATE", "PIN", "PID", "CONTEXT", "PARALLEL", "ACTIVE", "QUEUED"]
    assert row.split() == [KEY, KEY, "ready", "cpu", "cores", "0-1", "4711", "4096", "8", "1", "0"]


def test_ps_tells_how_far_a_load_is(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance(state="loading", load_progress=0.42)]})
    assert "loading 42%" in atelier("ps").stdout


def test_ps_tells_why_an_instance_failed(server: ScriptedServer, atelier: Atelier) -> None:
    failed = instance(state="failed", error={"code": "insufficient_memory", "message": "Needs 9 GB."}, pid=0)
    server.answers("GET /api/v1/instances", {"instances": [failed]})
    assert atelier("ps").stderr == f"{KEY}: Needs 9 GB.\n"


def test_ps_json_is_the_servers_reply(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance()]})
    assert json.loads(atelier("ps", "--json").stdout) == {"instances": [instance()]}


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
    assert "name one of a, b, or give --all" in result.stderr


def test_unload_all_takes_every_instance(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/instances", {"instances": [instance("a"), instance("b")]})
    server.answers("POST /api/v1/models/unload", {"instance_id": "?"})
    assert atelier("unload", "--all").stdout == "Unloaded a\nUnloaded b\n"


def test_unload_takes_a_name_or_all(atelier: Atelier) -> None:
    assert atelier("unload", "a", "--all").exit_code == 2
