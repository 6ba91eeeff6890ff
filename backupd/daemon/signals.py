"""Signals as events of a loop: nothing happens inside a handler."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_WOKEN = 0


class Signals:
    """Catches signals while the block runs. To be used in the main thread; only `wake` may be called from others."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._in)
        os.close(self._out)

    def wait(self, seconds: float) -> Sequence[int]:
        """The signals that have come, in order, as soon as there are any; nothing after that time, or when woken."""
        if not select.select([self._out], [], [], max(0.0, seconds))[0]:
            return []
        try:
            return [number for number in os.read(self._out, 1024) if number != _WOKEN]
        except BlockingIOError:
            return []

    def wake(self) -> None:
        """End the current or the next `wait`."""
        with suppress(BlockingIOError):  # it is full: whoever waits will wake
            os.write(self._in, bytes([_WOKEN]))
