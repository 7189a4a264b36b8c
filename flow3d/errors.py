"""Errors that a user can act on: each message names the node or file, the frame, the cause and the remedy."""

_LONGEST = 1500
"""Characters of a message; of a longer one the middle is left out, for its end says what to do."""


class Flow3DError(Exception):
    """Something failed that is not the caller's fault (the command line exits with status 1).

    Its text can be shown anywhere, whatever it quotes: control characters and halves of characters are written as escapes (a
    log in UTF-8 cannot take the latter, and ComfyUI's queue ends when its log does), and it is of bounded length.
    """

    def __init__(self, message: object = ""):
        super().__init__(printable(str(message)))


class InputError(Flow3DError, ValueError):
    """The input cannot be used as it is (the command line exits with status 2)."""


def printable(text: str) -> str:
    """The text in characters that can be printed, and not too many of them.

    >>> printable("a\\0b\\ud800")
    'a\\\\x00b\\\\ud800'
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST * 2 // 3]} ... {text[-_LONGEST // 3 :]}"
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
