"""The tool loop: answers that continue after each call of an MCP server's tool."""
