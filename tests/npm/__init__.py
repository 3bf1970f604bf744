"""Tools that tests use from npm: published MCP servers, and the public conformance suite of MCP.

Node itself comes from PyPI as everything else does: the suite needs a newer one than Debian has.
"""
