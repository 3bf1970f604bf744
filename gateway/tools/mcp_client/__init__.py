"""The MCP client: connections to MCP servers, and calls of their tools."""
