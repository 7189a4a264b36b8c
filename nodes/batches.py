"""Batches of pictures: what they take of memory, said before it is taken."""

import logging
from collections.abc import Sequence

import psutil
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..flow3d.errors import InputError

LARGE = 10**9
"""Bytes from which on a batch is worth a word."""


def announce(node: str, frames: int, size: Sequence[int], numbers: int, remedy: str) -> None:
    """Say at the node and in the log what a large batch takes. Call it before the memory is asked for.

    Args:
        size: the pictures' height and width. numbers: float32 for each pixel, of all outputs together.
        remedy: what to do instead, a sentence.

    Raises InputError where the machine has not so much memory: a server that takes it nevertheless is killed.
    """
    height, width = size
    taken = frames * height * width * numbers * 4
    if taken < LARGE:
        return
    cost = f"{frames} frames of {width} x {height} pixels take {taken / 1e9:.1f} GB of memory"
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if taken > free:
        raise InputError(f"{node}: {cost}, and {free / 1e9:.1f} GB are free. {remedy}")
    logging.info(f"{node}: {cost}. {remedy}")
    context = get_executing_context()
    if context is not None:
        PromptServer.instance.send_progress_text(f"{cost}. {remedy}", context.node_id)
