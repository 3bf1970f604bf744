"""Hosts: how operators write them, who can reach a server on one, and why it cannot listen there. Pure."""

import errno
import ipaddress
from urllib.parse import urlsplit

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Hosts that stand for every interface, and the address at which this machine reaches each."""


def split_host(entry: str) -> tuple[str, int | None]:
    """Host and port of `nas:8080`, `10.0.0.7`, `[fd00::7]:80`: an IPv6 address is in brackets. Raises ValueError."""
    parts = urlsplit(f"//{entry}")
    host = (parts.hostname or "").rstrip(".")
    if not host or parts.netloc != entry or parts.username is not None:
        raise ValueError(f'"{entry}" is neither a host nor host:port')
    return host, parts.port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host, which is a name or an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def exposure_fault(host: str, *, has_key: bool, allow_open: bool) -> str | None:
    """Why the server must not listen there: if other machines can reach it, it needs a key or explicit permission."""
    if is_loopback(host) or has_key or allow_open:
        return None
    return (
        f"Other machines can reach {host or 'this server'}, so it needs a key: set ATELIER_API_KEY, "
        "or pass --allow-open (ATELIER_ALLOW_OPEN=true) to serve without one."
    )


def unknown_host(host: str) -> str:
    return f"There is no host {host} to listen on."


def listen_fault(host: str, port: int, error: OSError) -> str:
    """Why the port could not be bound, and what to change."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is in use. Choose another one with --port (ATELIER_PORT), "
            "or stop the program that listens there."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} is reserved for the administrator. Choose one above 1023 with --port (ATELIER_PORT)."
    return f"Cannot listen on {host}, port {port}: {error.strerror}."
