"""Logs on a terminal, and as lines of JSON."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from atelier.config import Config
from atelier.logs import configure_logs

HOSTILE = "\x1b]0;renamed\x07 two\nlines"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Restores the logging configuration for other tests."""
    root = logging.getLogger()
    handlers, level, levels = root.handlers, root.level, levels_of_loggers()
    yield
    root.handlers, root.level = handlers, level
    for name in levels_of_loggers():
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def levels_of_loggers() -> dict[str, int]:
    known = logging.Logger.manager.loggerDict
    return {name: logger.level for name, logger in known.items() if isinstance(logger, logging.Logger)}


@pytest.mark.parametrize("form", ["console", "json"])
def test_control_characters_from_others_do_not_reach_the_terminal(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Config(log_format=form), "test")  # type: ignore[arg-type]
    structlog.get_logger("test").warning("mcp_server_failed", last_words=HOSTILE)
    said = capsys.readouterr().err
    assert "\x1b]" not in said
    assert "\x07" not in said
    if form == "json":
        assert json.loads(said)["last_words"] == HOSTILE
