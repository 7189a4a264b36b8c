"""Errors that a user can act on: each message names the node or file, the frame, the cause and the remedy."""


class Flow3DError(Exception):
    """Something failed that is not the caller's fault (the command line exits with status 1)."""


class InputError(Flow3DError, ValueError):
    """The input cannot be used as it is (the command line exits with status 2)."""
