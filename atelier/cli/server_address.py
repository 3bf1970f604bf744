"""How this machine reaches its own server."""

from atelier.hosts import WILDCARDS


def local_url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens on `host`."""
    reached = WILDCARDS.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"
