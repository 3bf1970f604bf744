"""How much room the server's files take."""
