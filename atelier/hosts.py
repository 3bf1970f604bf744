"""Hosts as an operator writes them: by name or number, with a port or without."""

from urllib.parse import urlsplit


def split_host(entry: str) -> tuple[str, int | None]:
    """`nas:8080`, `10.0.0.7`, `[fd00::7]:80` to host and port; ValueError. An IPv6 address is in brackets."""
    parts = urlsplit(f"//{entry}")
    host = (parts.hostname or "").rstrip(".")
    if not host or parts.netloc != entry or parts.username is not None:
        raise ValueError(f'"{entry}" is no host and no host:port')
    return host, parts.port
