"""Whether a message is one for a user: it names the node, the cause and the remedy, and nothing of the machinery inside."""

import re

LONGEST = 1600  # characters
_INTERNALS = re.compile(
    r"NoneType|has no attribute|object is not|not (subscriptable|iterable|callable|hashable)|unhashable|unsupported operand|"
    r"\b\w+(Error|Exception|Warning)\b|Traceback|<(class|function|built-in|module|method)\b|<[\w.]+ object|object at 0x|"
    r"\btensor\(|torch\.|numpy\.core|\bnp\.|array\(\[|dtype\(|size mismatch|must match the (size|existing)|"
    r"positional argument|keyword argument|unexpected keyword|missing \d+ required|\bErrno\b|list index|out of range \(|"
    r"cannot reshape|could not broadcast|operands could not|einsum|invalid literal|could not convert|codec can't|"
    r"recursion depth|embedded null|surrogates not allowed|exceeds the limit|argument must be|not supported between|"
    r"mat1 and mat2|singular matrix|expected scalar type|Expected all|__\w+__\b|stack\(|indices must be|File \"|line \d+, in ",
)
_REMEDY = re.compile(
    r"\b(Use|Choose|Put|Connect|Disconnect|Set|Lower|Raise|Save|Give|Write|Load|Fit|Make|Download|Get|Take|Convert|Export|Copy|"
    r"Record|Change|Trim|Cut|Add|Remove|Leave|Check|Queue|Move|Mend|Crop|Retarget|Correct|Enter|Free|Encode|Place|Select|"
    r"Open|Install|Mend|Export|Did you mean|must be|must have)\b",
    re.IGNORECASE,
)


def faults(message: str, node: str) -> list[str]:
    """What is wrong with the message that the node of this name gave; empty where nothing is."""
    found = []
    if not message.startswith(node):
        found.append(f"does not begin with '{node}'")
    if inside := _INTERNALS.search(_without_quotes(message)):
        found.append(f"tells of the inside: {inside[0]!r}")
    if not _REMEDY.search(_without_quotes(message.removeprefix(node))):
        found.append("names no remedy")
    if len(message) > LONGEST:
        found.append(f"has {len(message):,} characters")
    if odd := re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", message):
        found.append(f"holds the control character {odd[0]!r}")
    if not message.rstrip().endswith((".", "?", ")")):
        found.append("ends in the middle of a sentence")
    return found


def _without_quotes(message: str) -> str:
    """The message without what it quotes from the request or the file."""
    return re.sub(r"'[^']{0,300}'(?=[\s.,;:)]|$)|\"[^\"]{0,300}\"", "''", message)
