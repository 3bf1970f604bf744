"""This server's own REST API: management, health and what no other dialect has."""
