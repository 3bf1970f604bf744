"""Logs: events with fields, as JSON lines or, on a terminal, in colour. They contain no prompts or completions."""

import logging
import sys

import structlog

from atelier.config import Config
from atelier.printable import printable


def configure_logs(config: Config, service: str, **fields: object) -> None:
    """Write the records of structlog and of the standard library to standard error, in one format.

    `service` and `fields` are part of every record of this process.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(config)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(config.log_level.upper())
    for noisy in ("httpx", "httpcore", "httpx2", "httpcore2", "alembic", "asyncio", "mcp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("mcp.client").setLevel(logging.CRITICAL)  # it logs whatever servers send
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(config.log_level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service, **fields)


def _rendering(config: Config) -> list[structlog.typing.Processor]:
    on_terminal = config.log_format == "console" or (config.log_format == "auto" and sys.stderr.isatty())
    return [shown, structlog.dev.ConsoleRenderer()] if on_terminal else [structlog.processors.JSONRenderer()]


def shown(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Values may be untrusted text, such as an MCP server's error: remove control characters."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}
