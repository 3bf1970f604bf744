"""The MCP server: what this server offers to MCP clients."""
