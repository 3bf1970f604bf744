"""Routes of our own: models, instances, the state of the server."""
