"""What would make the server fail is checked before anything starts."""

import os
import socket
from pathlib import Path

from atelier.cli.output import Failure
from atelier.config import Config, make_private
from atelier.hosts import exposure_fault, listen_fault, unknown_host

_CHOOSE_HOME = "Choose another one with --home or ATELIER_HOME."


def checked(config: Config) -> Config:
    """The configuration with its final port. Raises Failure when the server cannot start with it."""
    check_exposure(config)
    prepare_home(config)
    check_home_is_free(config)
    return config.model_copy(update={"port": claim_port(config.host, config.port)})


def check_exposure(config: Config) -> None:
    fault = exposure_fault(config.host, has_key=config.api_key is not None, allow_open=config.allow_open)
    if fault is not None:
        raise Failure(fault)


def prepare_home(config: Config) -> None:
    """Create the home and its directory for logs. Raises Failure when they are not writable."""
    try:
        config.home.mkdir(parents=True, exist_ok=True)
        config.logs_dir.mkdir(exist_ok=True)
        make_private(config.run_dir)
    except OSError as error:
        raise Failure(f"The home {config.home} cannot be used: {error.strerror or error}. {_CHOOSE_HOME}") from None
    if not os.access(config.home, os.W_OK):
        raise Failure(f"The home {config.home} is not writable. {_CHOOSE_HOME}")


def check_home_is_free(config: Config) -> None:
    """Raises Failure when another registry serves this home: both would write the same database."""
    path = Path(config.registry_target.removeprefix("unix:"))
    if not config.registry_target.startswith("unix:") or not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise Failure(f"A server with the home {config.home} runs already, or is still stopping. {_CHOOSE_HOME}")


def claim_port(host: str, port: int) -> int:
    """The port, which was free a moment ago; for 0, any free one. Raises Failure when it cannot be bound."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise Failure(unknown_host(host)) from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            raise Failure(listen_fault(host, port, error)) from None
        return int(probe.getsockname()[1])
