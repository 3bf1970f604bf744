"""Who can reach a server that listens on a host, whether it then needs a key, and why it cannot listen. Pure."""

import errno
import ipaddress

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # and how this machine reaches each of them


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host, by name or by number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def exposure_fault(host: str, *, has_key: bool, allow_open: bool) -> str | None:
    """What speaks against listening there: a server that others reach needs a key, or somebody's word."""
    if is_loopback(host) or has_key or allow_open:
        return None
    return (
        f"Other machines can reach {host or 'this server'}, so it needs a key: set ATELIER_API_KEY, "
        "or give --allow-open (ATELIER_ALLOW_OPEN=true) to let everyone in."
    )


def unknown_host(host: str) -> str:
    return f"There is no host {host} to listen on."


def listen_fault(host: str, port: int, error: OSError) -> str:
    """Why the port could not be taken, and what to change."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is in use. Choose another one with --port (ATELIER_PORT), "
            "or stop the program that listens there."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} is reserved for the administrator. Choose one above 1023 with --port (ATELIER_PORT)."
    return f"Cannot listen on {host}, port {port}: {error.strerror}."
