import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier

LIST = "GET /api/v1/presets"


def preset(name: str = "precise", **facts: Any) -> dict[str, Any]:
    groups: dict[str, Any] = {"load": {}, "prompt": {}, "inference": {"temperature": 0.2}}
    return {"name": name, "model": None, "version": 3, "changed_at": 0.0, **groups, **facts}


def test_presets_are_listed_with_their_settings(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(LIST, {"presets": [preset(), preset("long", prompt={"system_prompt": "word " * 50})]})
    lines = atelier("presets").stdout.splitlines()
    assert lines[1].split() == ["precise", "3", "temperature=0.2"]
    assert "…" in lines[2]


def test_no_presets_say_how_to_make_one(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(LIST, {"presets": []})
    assert "atelier presets set" in atelier("presets").stderr


def test_show_is_a_table(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/presets/precise?version=2", preset())
    lines = atelier("presets", "show", "precise", "--version", "2").stdout.splitlines()
    assert lines[1].split() == ["inference.temperature", "0.2"]


@pytest.mark.parametrize(("known", "method"), [([], "PUT"), ([preset()], "PATCH")])
def test_set_makes_or_changes(
    server: ScriptedServer, atelier: Atelier, tmp_path: Path, known: list[Any], method: str
) -> None:
    server.answers(LIST, {"presets": known})
    server.answers(f"{method} /api/v1/presets/precise", preset())
    (tmp_path / "t.jinja").write_text("{{ x }}")
    values = [
        "temperature=0.2",
        "load.parallel=4",
        "system_prompt=7",
        f"chat_template=@{tmp_path / 't.jinja'}",
        'stop=["a"]',
    ]
    result = atelier("presets", "set", "precise", *values)
    assert result.exit_code == 0, result.stderr
    assert server.received[-1].body == {
        "inference": {"temperature": 0.2},
        "load": {"parallel": 4},
        "prompt": {"system_prompt": "7", "chat_template": "{{ x }}", "stop": ["a"]},
    }


def test_a_misspelt_setting_is_found_before_the_request(server: ScriptedServer, atelier: Atelier) -> None:
    result = atelier("presets", "set", "precise", "temprature=1")
    assert result.exit_code == 2
    assert "temperature" in result.stderr
    assert atelier("presets", "set", "precise", "temperature").exit_code == 2


def test_unset_sends_null(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("PATCH /api/v1/presets/precise", preset())
    atelier("presets", "unset", "precise", "temperature", "stop")
    assert server.received[-1].body == {"inference": {"temperature": None}, "prompt": {"stop": None}}


def test_a_difference_is_a_table(server: ScriptedServer, atelier: Atelier) -> None:
    difference = {"group": "inference", "setting": "temperature", "before": None, "after": 0.2}
    server.answers("GET /api/v1/presets/precise/diff?with=other", {"differences": [difference]})
    assert "inference.temperature" in atelier("presets", "diff", "precise", "other").stdout
    assert atelier("presets", "diff", "precise").exit_code == 2


def test_a_file_is_imported(server: ScriptedServer, atelier: Atelier, tmp_path: Path) -> None:
    server.answers("POST /api/v1/presets/import", {**preset(), "ignored": ["llm.x"]})
    file = tmp_path / "p.preset.json"
    file.write_text(json.dumps({"name": "Precise"}))
    result = atelier("presets", "import", str(file), "--name", "precise", "--replace")
    assert "llm.x" in result.stderr
    assert server.received[-1].body == {"file": {"name": "Precise"}, "replace": True, "name": "precise"}
    file.write_text("{")
    assert atelier("presets", "import", str(file)).exit_code == 1


def test_a_default_preset_is_set_or_removed(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("POST /api/v1/models/default-preset", {"model": "a/b", "default_preset": None})
    assert "no default preset" in atelier("presets", "default", "b", "--none").stdout
    assert server.received[-1].body == {"model": "b", "preset": None}
    assert atelier("presets", "default", "b").exit_code == 2


def test_settings_show_where_each_comes_from(server: ScriptedServer, atelier: Atelier) -> None:
    entry = {"value": 0.2, "origin": "preset precise"}
    server.answers("GET /api/v1/models/a/b/settings?preset=precise", {"settings": {"temperature": entry}})
    lines = atelier("settings", "a/b", "--preset", "precise").stdout.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "ORIGIN"]
    assert lines[1].split() == ["temperature", "0.2", "preset", "precise"]
