"""How long things may take on a machine that has other work to do."""

import os


def second() -> float:
    """A second of a quiet machine's time: on a busy one, or beside other tests, of which this one gets a share, as much longer."""
    share = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
    return max(1.0, share, float(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))
