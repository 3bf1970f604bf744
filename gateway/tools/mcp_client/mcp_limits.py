"""What servers may take of the gateway. Pure."""

from dataclasses import dataclass

KIB, MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Times are in seconds, sizes in bytes or characters."""

    connect_seconds: float = 30.0  # to start a server and to agree on the protocol
    list_seconds: float = 20.0  # for all its tools
    probe_seconds: float = 5.0  # for a sign of life, after a call that took too long
    refresh_seconds: float = 300.0  # after which tools are listed again, changed or not
    idle_seconds: float = 600.0  # without use, after which a connection is closed
    grace_seconds: float = 2.0  # for a program to end once its input has, and again once it was told to
    longest_backoff: float = 60.0  # before a server that failed again and again is tried once more
    guests: int = 32  # connections to servers that requests named
    message: int = 16 * MIB  # one message, as it is on the wire
    parts: int = 500_000  # values in one message: small ones take far more memory than they have bytes
    messages_a_second: int = 500  # of one server; more wait
    result: int = 256 * KIB  # characters of text in one result
    images: int = 16  # in one result
    tools: int = 512
    pages: int = 64  # of one list of tools
    schema: int = 64 * KIB  # one tool's, as JSON
    schemas: int = 2 * MIB  # one server's
    depth: int = 48  # of a schema
    argument_depth: int = 100  # at which they can still be written down
    description: int = 16 * KIB
    asking_seconds: float = 300.0  # that users may take for all that a server asks them during one call
    sampling: int = 2  # requests of one server that a model answers at a time


def parts_of(data: bytes | bytearray) -> int:
    """At least as many values as there are in a piece of JSON."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")
