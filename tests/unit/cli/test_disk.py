import json
from typing import Any

from tests.support.command.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier

DISK = "GET /api/v1/disk"
EMPTY: dict[str, Any] = {
    "file_systems": [{"path": "/srv/atelier", "total_bytes": 500_000_000_000, "free_bytes": 12_000_000_000}],
    "models": [],
    "downloads": [],
    "leftovers": [],
    "caches": [],
    "library_bytes": 0,
    "adapters_bytes": 0,
    "logs_bytes": 2000,
    "database_bytes": 3000,
    "other_bytes": 0,
    "used_bytes": 5000,
}
FULL = {
    **EMPTY,
    "models": [
        {"key": "lab/small", "size_bytes": 1_000_000, "in_library": True, "names": 1},
        {"key": "lab/large", "size_bytes": 4_000_000_000, "in_library": True, "names": 2},
        {"key": "lab/kept", "size_bytes": 2_000_000, "in_library": False, "names": 3},
    ],
    "downloads": [{"job_id": "d1", "size_bytes": 7_000_000}],
    "leftovers": [{"path": "/srv/atelier/models/.downloads/\x1b[2Jx", "size_bytes": 5}],
    "caches": [
        {"directory": "gone", "instance": None, "size_bytes": 10},
        {"directory": "lab--small~2", "instance": "lab/small:2", "size_bytes": 30},
    ],
    "library_bytes": 4_001_000_000,
    "used_bytes": 4_008_005_045,
}


def rows(output: str) -> list[list[str]]:
    """The table's cells; those between two spaces belong together."""
    table = output.partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()[1:]]


def test_files_are_listed_largest_first(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(DISK, FULL)
    assert rows(atelier("disk").stdout) == [
        ["lab/large", "model", "4.0 GB", "2 names"],
        ["lab/kept", "model", "2.0 MB", "elsewhere, not counted"],
        ["lab/small", "model", "1.0 MB"],
        ["d1", "unfinished download", "7.0 MB"],
        ["/srv/atelier/models/.downloads/[2Jx", "left by a download", "5 B", "unused"],
        ["lab/small:2", "saved prompts", "30 B"],
        ["gone", "saved prompts", "10 B", "of an unknown model"],
        ["adapters", "LoRA files", "0 B"],
        ["logs", "of services and workers", "2.0 kB"],
        ["database", "of the registry", "3.0 kB"],
        ["others", "in the models' folder", "0 B", "of no model"],
    ]


def test_totals_and_free_space_are_shown_below(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(DISK, FULL)
    assert atelier("disk").stdout.splitlines()[-2:] == [
        "The library's models take 4.0 GB, all files of the server 4.0 GB; each file is counted once.",
        "/srv/atelier has 12.0 GB of 500.0 GB free.",
    ]


def test_an_empty_server_has_files_too(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(DISK, EMPTY)
    assert [row[0] for row in rows(atelier("disk").stdout)] == ["adapters", "logs", "database", "others"]


def test_json_is_the_servers_reply(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(DISK, FULL)
    assert json.loads(atelier("disk", "--json").stdout) == FULL
