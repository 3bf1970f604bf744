"""The `atelier` command: it starts the server, and speaks HTTP to one that runs."""
