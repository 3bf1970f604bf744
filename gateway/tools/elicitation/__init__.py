"""Questions that MCP servers ask the user."""
