"""Tools that tests take from npm: MCP servers that others wrote, and the public conformance suite of MCP.

Node itself comes from PyPI as everything else does: the suite needs a newer one than Debian has.
"""
