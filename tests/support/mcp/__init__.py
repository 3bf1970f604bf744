"""For tests with MCP servers and clients."""
