"""Connections to MCP servers, and calls of their tools."""
