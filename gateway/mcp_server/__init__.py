"""The gateway as an MCP server: its models as tools, its state as resources, its presets as prompts."""
