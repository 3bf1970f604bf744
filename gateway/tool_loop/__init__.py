"""Answers that call tools of MCP servers on their way: which tools there are, and the loop that runs them."""
