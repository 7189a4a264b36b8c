"""How long things may take on a machine that has other work to do."""

import os


def second() -> float:
    """A second of a quiet machine's time: on a busy one, of which this process gets a share, as much longer."""
    share = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
    return max(1.0, share)
