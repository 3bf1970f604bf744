"""`atelier scale`: how many instances a model has."""

import pytest

from tests.support.command.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier


@pytest.mark.parametrize(
    ("flags", "sent", "replicas", "shown"),
    [
        (["--min", "1", "--max", "3"], {"min": 1, "max": 3}, {"min": 1, "max": 3}, "a/b: 1 to 3\n"),
        (["--min", "2"], {"min": 2}, {"min": 2, "max": 2}, "a/b: 2\n"),
        (["--off"], {}, None, "a/b: not scaled\n"),
    ],
)
def test_limits_are_sent_and_reported(
    server: ScriptedServer,
    atelier: Atelier,
    flags: list[str],
    sent: dict[str, int],
    replicas: dict[str, int] | None,
    shown: str,
) -> None:
    server.answers("POST /api/v1/models/replicas", {"model": "a/b", "replicas": replicas})
    assert atelier("scale", "b", *flags).stdout == shown
    assert server.received[-1].body == {"model": "b", **sent}


@pytest.mark.parametrize("flags", [[], ["--off", "--max", "2"]])
def test_ambiguous_arguments_are_rejected(server: ScriptedServer, atelier: Atelier, flags: list[str]) -> None:
    assert atelier("scale", "b", *flags).exit_code == 2
    assert not server.received
