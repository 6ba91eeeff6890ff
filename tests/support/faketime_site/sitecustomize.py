"""libfaketime 0.9.10 breaks `time.sleep` of Python 3.11 when the monotonic clock is left alone (its issue 426)."""

import threading
import time
from typing import SupportsIndex


def sleep(seconds: float | SupportsIndex) -> None:
    """The same by other means, which it leaves alone."""
    threading.Event().wait(float(seconds))


time.sleep = sleep
