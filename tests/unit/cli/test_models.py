import json
from pathlib import Path
from typing import Any

from tests.support.command.cli_facts import KEY, loaded, model
from tests.support.command.cli_server import Reply, ScriptedServer
from tests.unit.cli.conftest import Atelier


def test_ls_shows_one_line_per_model(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(
        "GET /api/v1/models", {"models": [loaded(), model("lab/tiny", architecture=None, quantization=None)]}
    )
    lines = atelier("ls").stdout.splitlines()
    assert lines[0].split() == ["KEY", "ARCH", "PARAMS", "QUANT", "SIZE", "CONTEXT", "LOADED"]
    assert lines[1].split() == [KEY, "llama", "135M", "Q4_1", "98.8", "MB", "8192", "1"]
    assert lines[2].split() == ["lab/tiny", "135M", "98.8", "MB", "8192"]


def test_ls_json_is_the_servers_reply(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/models", {"models": [model()]})
    assert json.loads(atelier("ls", "--json").stdout) == {"models": [model()]}


def test_ls_of_an_empty_server_says_how_to_get_a_model(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/models", {"models": []})
    result = atelier("ls")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "atelier import FILE" in result.stderr


def test_import_sends_the_absolute_path_and_the_mode(
    server: ScriptedServer, atelier: Atelier, tmp_path: Path, monkeypatch
) -> None:
    server.answers("POST /api/v1/models/import", model())
    monkeypatch.chdir(tmp_path)
    for flags, mode in (([], "copy"), (["--link"], "link"), (["--in-place"], "in_place")):
        result = atelier("import", "tiny.gguf", "--key", "lab/tiny", *flags)
        assert (result.exit_code, KEY in result.stdout) == (0, True)
        sent = server.bodies("/api/v1/models/import")[-1]
        assert sent == {"path": str(tmp_path / "tiny.gguf"), "key": "lab/tiny", "mode": mode}


def test_a_rejected_import_of_a_missing_file_says_where_it_must_be(server: ScriptedServer, atelier: Atelier) -> None:
    server.refuses("POST /api/v1/models/import", 404, "There is no such file.")
    result = atelier("import", "/nowhere/tiny.gguf")
    assert result.exit_code == 1
    assert result.stderr == (
        "atelier: There is no such file. "
        f"The server opens the file itself: it must be on the machine of {server.url}.\n"
    )


def test_a_rejected_import_of_an_existing_file_shows_only_the_servers_reason(
    server: ScriptedServer, atelier: Atelier, tmp_path: Path
) -> None:
    server.refuses("POST /api/v1/models/import", 400, "Not a GGUF file.")
    (tmp_path / "bad.gguf").write_text("x")
    assert atelier("import", str(tmp_path / "bad.gguf")).stderr == "atelier: Not a GGUF file.\n"


def test_import_takes_only_one_mode(server: ScriptedServer, atelier: Atelier) -> None:
    assert atelier("import", "x.gguf", "--link", "--in-place").exit_code == 2
    assert server.received == []


def test_rm_says_what_was_deleted(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("POST /api/v1/models/remove", {"model": KEY, "deleted": ["/m/a.gguf"]})
    assert atelier("rm", "tiny").stdout == f"Removed {KEY}: 1 file deleted\n"
    server.answers("POST /api/v1/models/remove", {"model": KEY, "deleted": []})
    assert "was kept" in atelier("rm", "tiny").stdout


def test_verify_of_all_models_fails_with_one_of_them(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/models", {"models": [model("a/good"), model("a/bad")]})
    good = {"name": "g.gguf", "found": "sha256:1", "expected": "sha256:1", "fault": None}
    bad = {"name": "b.gguf", "found": "sha256:1", "expected": "sha256:2", "fault": "Its content is another."}
    replies = iter([{"model": "a/good", "ok": True, "files": [good]}, {"model": "a/bad", "ok": False, "files": [bad]}])
    server.answers("POST /api/v1/models/verify", lambda request: Reply(next(replies)))
    result = atelier("verify")
    assert result.exit_code == 1
    assert result.stdout == "a/good: matches its digests\na/bad: b.gguf: Its content is another.\n"


def test_show_prints_all_facts_and_the_memory_by_context_length(server: ScriptedServer, atelier: Atelier) -> None:
    memory = {"context_length": 2048, "weights_bytes": 2**20, "kv_cache_bytes": 2**21, "compute_bytes": 0}
    facts = {
        "path": "/m/a.gguf",
        "embedding_length": 576,
        "licence": "apache-2.0",
        "default_preset": None,
        "replicas": {"min": 1, "max": 3},
        "made_for_tools": True,
        "made_for_reasoning": False,
        "made_for_vision": True,
        "projector": "/m/mmproj.gguf",
        "chat_template": "{{ messages }}",
        "source": {"source": "hub", "name": "a/b", "revision": "c" * 40},
        "memory": [{**memory, "total_bytes": 3 * 2**20}],
    }
    server.answers("GET /api/v1/models/tiny/info", {**model(), **facts})
    output = atelier("show", "tiny").stdout
    assert "made for        chat, tools, vision\n" in output
    assert "instances       1 to 3\n" in output
    assert "projector       /m/mmproj.gguf\n" in output
    assert "from            hub a/b cccccccccccc\n" in output
    assert output.splitlines()[-1].split() == ["2048", "1", "2", "0", "3"]
    assert atelier("show", "tiny", "--template").stdout == "{{ messages }}"


def device(id: str, **readings: float | str) -> dict[str, Any]:
    return {
        "id": id,
        "description": "NVIDIA X",
        "memory_total_bytes": 24 * 2**30,
        "memory_free_bytes": 2**30,
        "instances": [KEY],
        "readings": readings or None,
    }


def test_devices_are_listed(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers("GET /api/v1/devices", {"devices": [device("cuda:0")]})
    assert atelier("devices").stdout.splitlines() == [
        "DEVICE     FREE    MEMORY  WHAT      INSTANCES",
        f"cuda:0  1.0 GiB  24.0 GiB  NVIDIA X  {KEY}",
    ]


def test_devices_are_listed_with_their_available_readings(server: ScriptedServer, atelier: Atelier) -> None:
    shown = device("cuda:0", utilization_percent=0, temperature_celsius=64, power_watts=212.5, memory_used_bytes=2**34)
    server.answers("GET /api/v1/devices", {"devices": [shown, device("cpu")]})
    assert atelier("devices").stdout.splitlines() == [
        "DEVICE     FREE    MEMORY      USED  BUSY   TEMP  POWER  WHAT      INSTANCES",
        f"cuda:0  1.0 GiB  24.0 GiB  16.0 GiB    0%  64 °C  212 W  NVIDIA X  {KEY}",
        f"cpu     1.0 GiB  24.0 GiB                                NVIDIA X  {KEY}",
    ]


def test_a_folder_is_imported_model_by_model(server: ScriptedServer, atelier: Atelier, tmp_path: Path) -> None:
    names = ("a/x.gguf", "a/big-00001-of-00002.gguf", "a/big-00002-of-00002.gguf", "a/mmproj-x.gguf", "a/README.md")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    keys = iter(["a/big", "a/x"])
    server.answers("POST /api/v1/models/import", lambda request: Reply(model(next(keys))))
    result = atelier("import", str(tmp_path), "--in-place")
    assert result.stdout == "Imported a/big\nImported a/x\n"
    assert [body["path"] for body in server.bodies("/api/v1/models/import")] == [
        str(tmp_path / "a/big-00001-of-00002.gguf"),
        str(tmp_path / "a/x.gguf"),
    ]


def test_a_rejected_model_of_a_folder_does_not_stop_the_others(
    server: ScriptedServer, atelier: Atelier, tmp_path: Path
) -> None:
    (tmp_path / "bad.gguf").write_text("x")
    server.refuses("POST /api/v1/models/import", 400, "It is no model.")
    result = atelier("import", str(tmp_path))
    assert (result.exit_code, "It is no model." in result.stderr) == (1, True)
    (tmp_path / "bad.gguf").unlink()
    assert "no GGUF files" in atelier("import", str(tmp_path)).stderr
