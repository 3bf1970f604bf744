"""The limits that protect the gateway from MCP servers. Pure."""

from dataclasses import dataclass

KIB, MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Times in seconds, sizes in bytes or characters."""

    connect_seconds: float = 30.0  # to start a server and to agree on the protocol version
    list_seconds: float = 20.0  # for all pages of its tools
    probe_seconds: float = 5.0  # for a ping after a call that timed out
    refresh_seconds: float = 300.0  # after which tools are listed again, even without a change notification
    idle_seconds: float = 600.0  # without use, after which a connection is closed
    grace_seconds: float = 2.0  # for a program to exit after its input was closed, and again after SIGTERM
    longest_backoff: float = 60.0  # between attempts to connect to a server that keeps failing
    guests: int = 32  # connections to servers named by requests
    message: int = 16 * MIB  # one message on the wire
    parts: int = 500_000  # JSON values in one message: small ones take far more memory than bytes on the wire
    messages_a_second: int = 500  # from one server; reading slows down beyond that
    result: int = 256 * KIB  # characters of text in one result
    images: int = 16  # in one result
    tools: int = 512
    pages: int = 64  # of one list of tools
    schema: int = 64 * KIB  # one tool's, as JSON
    schemas: int = 2 * MIB  # all of one server's
    depth: int = 48  # of a schema
    argument_depth: int = 100  # of a call's arguments; the SDK cannot serialise much deeper ones
    description: int = 16 * KIB
    asking_seconds: float = 300.0  # for the user to answer all questions of one call
    sampling: int = 2  # sampling requests of one server at a time


def parts_of(data: bytes | bytearray) -> int:
    """An upper bound of the number of values in a piece of JSON."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")
