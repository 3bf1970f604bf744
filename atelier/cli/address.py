"""Addresses: which hosts are this machine, and how this machine reaches its own server."""

import ipaddress

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host, by name or by number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on `host`."""
    reached = WILDCARDS.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
