"""What went wrong, told to a person."""


class Failure(Exception):
    """The verb could not do what it was asked to. The message says why and what to do; the exit code is 1."""
