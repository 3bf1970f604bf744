import json
from typing import Any

import pytest

from atelier.cli import hub
from tests.support.command.cli_server import Received, Reply, ScriptedServer
from tests.unit.cli.conftest import Atelier

START = "POST /api/v1/models/download"
STATUS = "GET /api/v1/models/download/status/d1"
LIST = "GET /api/v1/models/downloads"


def download(**facts: Any) -> dict[str, Any]:
    return {
        "job_id": "d1",
        "status": "downloading",
        "state": "downloading",
        "model": "acme/tiny",
        "total_size_bytes": 2_000_000,
        "downloaded_bytes": 500_000,
        "bytes_per_second": 100_000,
        "seconds_left": 15.0,
        "model_key": None,
        "error": None,
        **facts,
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.001)


def test_search_shows_what_fits_and_what_does_not(server: ScriptedServer, atelier: Atelier) -> None:
    variants = [
        {"quantization": "Q4_0", "files": ["a.gguf"], "size_bytes": 1_000_000_000, "fits": True},
        {"quantization": None, "files": ["b.gguf"], "size_bytes": 9_000_000_000, "fits": False},
    ]
    model = {"id": "acme/tiny", "gated": True, "downloads": 12_345, "likes": 7, "variants": variants}
    server.answers("GET /api/v1/models/search?query=tiny+model&limit=10", {"models": [model]})
    lines = atelier("search", "tiny", "model").stdout.splitlines()
    assert lines[1].split() == [
        *("acme/tiny", "(gated)", "12k", "7", "Q4_0", "1.0", "GB,", "b.gguf", "9.0", "GB", "(!)")
    ]


def test_get_follows_the_download_to_its_end(server: ScriptedServer, atelier: Atelier) -> None:
    steps = iter([download(), download(state="verifying"), download(state="completed", model_key="acme/tiny")])
    server.answers(START, download(state="queued"))
    server.answers(STATUS, lambda request: Reply(next(steps)))
    result = atelier("get", "acme/tiny", "-q", "Q4_0")
    assert result.exit_code == 0, result.stderr
    assert "acme/tiny is downloaded" in result.stdout
    assert "downloading 500.0 kB of 2.0 MB" in result.stderr
    assert server.bodies("/api/v1/models/download") == [{"model": "acme/tiny", "quantization": "Q4_0"}]


def test_get_does_not_wait_when_detached(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(START, download())
    assert "atelier downloads" in atelier("get", "acme/tiny", "--detach").stdout


def test_get_of_an_installed_model(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(START, {"status": "already_downloaded", "model_key": "acme/tiny"})
    assert "acme/tiny is already there" in atelier("get", "acme/tiny").stdout


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (download(state="failed", error={"message": "The disk is full."}), "The disk is full. Try again with"),
        (download(state="paused"), "atelier downloads resume d1"),
    ],
)
def test_get_reports_why_there_is_no_model(
    server: ScriptedServer, atelier: Atelier, end: dict[str, Any], shown: str
) -> None:
    server.answers(START, download())
    server.answers(STATUS, end)
    result = atelier("get", "acme/tiny")
    assert result.exit_code == 1
    assert shown in result.stderr


def test_downloads_are_listed(server: ScriptedServer, atelier: Atelier) -> None:
    failed = download(job_id="d2", state="failed", bytes_per_second=0, seconds_left=None, error={"message": "No."})
    server.answers(LIST, {"downloads": [download(), failed]})
    result = atelier("downloads")
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["d1", "acme/tiny", "downloading", "25%", "2.0", "MB", "100.0", "kB/s", "15", "s"]
    assert lines[2].split() == ["d2", "acme/tiny", "failed", "25%", "2.0", "MB"]
    assert "d2: No." in result.stderr


@pytest.mark.parametrize(("action", "state"), [("pause", "downloading"), ("resume", "paused"), ("cancel", "failed")])
def test_the_only_download_needs_no_name(server: ScriptedServer, atelier: Atelier, action: str, state: str) -> None:
    server.answers(LIST, {"downloads": [download(state=state), download(job_id="d9", state="completed")]})
    server.answers(f"POST /api/v1/models/download/d1/{action}", download())
    result = atelier("downloads", action)
    assert result.exit_code == 0, result.stderr


def test_one_of_several_has_to_be_named(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(LIST, {"downloads": [download(), download(job_id="d2")]})
    assert "d1, d2" in atelier("downloads", "pause").stderr
    assert "no download to resume" in atelier("downloads", "resume").stderr


def test_json_is_the_servers_reply(server: ScriptedServer, atelier: Atelier) -> None:
    def reply(request: Received) -> Reply:
        return Reply({"downloads": [download()]})

    server.answers(LIST, reply)
    assert json.loads(atelier("downloads", "--json").stdout) == {"downloads": [download()]}
