"""`python courier.py SOCKET URL`, the suite's client: has the MCP client behind the socket run the scenario.

The suite starts a client for each of its scenarios, all at once; forty that each load the gateway would keep a small
machine busy for a minute. This one needs nothing but the standard library.
"""

import json
import os
import socket
import sys


def main(path: str, url: str) -> str:
    """The error; empty if there was none."""
    asked = {"url": url, "context": json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(json.dumps(asked).encode() + b"\n")
        return connection.makefile().read()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or 0)
