"""What a model writes, told apart as it streams: reasoning, text, tool calls."""
