"""MCP's public conformance suite, run against the gateway's MCP server and against its MCP host.

What is known to fail is listed, with the reason, in expected-*.yaml; the suite itself holds the results against it.
"""
