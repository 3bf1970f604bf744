"""What MCP servers ask the user during a call: the questions that are open, and the way of their answers."""
