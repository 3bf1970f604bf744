class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do next."""
