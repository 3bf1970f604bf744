"""MCP: what this server offers to MCP clients."""
