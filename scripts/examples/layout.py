"""Where nodes and groups lie on the canvas: in pixels, from the left to the right, without overlaps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

TITLE, SLOT, WIDGET, TEXT = 30, 20, 24, 90  # heights, as ComfyUI's page draws them; TEXT is for a field of several lines
GAP, PADDING, HEADING, BETWEEN = 30, 24, 44, 60  # between nodes; inside a frame; its title; between frames
NOTE_WIDTH, LINE, LETTER = 380, 13, 5.2  # a note, a line of it and a letter on average
GROUP_COLOURS = ("#3f789e", "#8A8", "#b58b2a", "#a1309b", "#b06634", "#88A")


def node_height(rows: int, widgets: int, multiline: int) -> int:
    """A node's height without its title: rows of sockets, widgets, and those of them with several lines of text."""
    return SLOT * rows + (WIDGET * widgets + 8 if widgets else 0) + TEXT * multiline + 6


def text_height(text: str) -> int:
    """A note's height for its Markdown."""
    rows = 0.0
    for line in text.replace("  \n", "\n").split("\n"):
        rows += max(0.5, math.ceil(LETTER * len(line) / (NOTE_WIDTH - 50)))
    return round(LINE * rows) + 70


@dataclass
class Box:
    """A node's place. Its title bar lies above `y`."""

    width: int
    height: int
    x: int = 0
    y: int = 0

    @property
    def pos(self) -> list[int]:
        return [self.x, self.y]

    @property
    def size(self) -> list[int]:
        return [self.width, self.height]


@dataclass
class Group:
    """Columns of nodes in a frame; an empty title draws no frame."""

    title: str
    colour: str
    columns: list[list[Box]] = field(default_factory=lambda: [[]])

    @property
    def width(self) -> int:
        return 2 * PADDING + sum(max(b.width for b in c) for c in self.columns) + 2 * GAP * (len(self.columns) - 1)

    @property
    def height(self) -> int:
        tallest = max(sum(TITLE + b.height for b in c) + GAP * (len(c) - 1) for c in self.columns)
        return HEADING + tallest + PADDING

    def put(self, x: int, y: int) -> None:
        left = x + PADDING
        for column in self.columns:
            top, width = y + HEADING, max(b.width for b in column)
            for box in column:
                box.x, box.y, box.width = left, top + TITLE, width
                top += TITLE + box.height + GAP
            left += width + 2 * GAP


def placed(stacks: Sequence[Sequence[Group]]) -> list[tuple[str, str, list[int]]]:
    """Put every node in its place. Returns the frames' titles, colours and bounds (x, y, width, height).

    The groups of a stack are as wide as the widest, and all stacks end at one height.
    """
    frames: list[tuple[str, str, list[int]]] = []
    bottom = max(sum(g.height for g in stack) + BETWEEN * (len(stack) - 1) for stack in stacks)
    x = 0
    for stack in stacks:
        y, width = 0, max(g.width for g in stack)
        for group in stack:
            height = bottom - y if group is stack[-1] else group.height
            group.put(x, y)
            if group.title:
                frames.append((group.title, group.colour, [x, y, width, height]))
            y += height + BETWEEN
        x += width + BETWEEN
    return frames
