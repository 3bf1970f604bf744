"""Tools of MCP servers, called while an answer is generated."""
