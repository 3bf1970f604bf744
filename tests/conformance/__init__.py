"""MCP's public conformance suite, run against the gateway's MCP server and its MCP client.

Known failures are listed in expected-*.yaml, with their reasons; the suite itself compares its results with them.
"""
