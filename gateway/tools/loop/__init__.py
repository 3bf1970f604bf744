"""Answers that continue after each call of an MCP server's tool."""
