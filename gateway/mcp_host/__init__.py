"""The MCP host: servers whose tools models may call, and the connections to them."""
