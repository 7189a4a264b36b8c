"""Progress bars on stderr: one a server and one for the whole."""

import sys
from dataclasses import dataclass, field
from typing import Protocol

from tqdm import tqdm

MOST = 12
"""Servers that get a bar of their own; more would not fit a screen."""


class Progress(Protocol):
    def working(self, server: str, item: str, share: float) -> None:
        """How much (0..1) of the item a server has done."""

    def finished(self, server: str, item: str, well: bool) -> None:
        """An item is done, or has failed for good."""

    def note(self, sentence: str) -> None:
        """Something that the user should know now."""


@dataclass
class Bars:
    total: int
    done: int
    servers: list[str]
    _one: dict[str, tqdm] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    failed: int = 0

    def __enter__(self) -> "Bars":
        pause = 0.2 if sys.stderr.isatty() else 10.0  # seconds; a log file wants few lines
        form = {"file": sys.stderr, "dynamic_ncols": True, "mininterval": pause}
        self.whole = tqdm(total=self.total, initial=self.done, desc="all", unit="item", **form)
        if sys.stderr.isatty() and len(self.servers) <= MOST:
            bar = "{desc} {percentage:3.0f}%|{bar}|"
            self._one = {s: tqdm(total=1.0, desc=s, position=i, bar_format=bar, **form) for i, s in enumerate(self.servers, 1)}
        return self

    def __exit__(self, *_: object) -> None:
        for bar in (*self._one.values(), self.whole):
            bar.close()

    def working(self, server: str, item: str, share: float) -> None:
        if bar := self._one.get(server):
            bar.set_description_str(f"{server}  {self._counts.get(server, 0)} done, {item}", refresh=False)
            bar.n = share
            bar.update(0)

    def finished(self, server: str, item: str, well: bool) -> None:
        self._counts[server] = self._counts.get(server, 0) + 1
        self.failed += not well
        if self.failed:
            self.whole.set_postfix_str(f"{self.failed} failed", refresh=False)
        self.whole.update(1)
        self.working(server, item, 0.0)

    def note(self, sentence: str) -> None:
        self.whole.write(sentence, file=sys.stderr)
