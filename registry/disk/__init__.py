"""How much space the server's files take."""
