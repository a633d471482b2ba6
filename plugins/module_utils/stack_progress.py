"""Lines of progress for a person who waits: how much, how fast, how long still."""

from __future__ import annotations

import time
from collections import deque

SHOW_EVERY = 5.0  # seconds between two lines
WINDOW = 30.0  # seconds that a rate is measured over


class Progress:
    """How far all files together are, and how fast it went lately, for a person who waits."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()
        self._seen = deque([(self._started, 0)])  # (time, bytes that had come by then)

    def line(self, verb: str, came: int, left: int, files: str) -> str:
        """A line; "" when the last one is not old, or when all was over before there was one.

        `came`: bytes that came since the start, `left`: bytes still to come, `files`: how many are there.
        """
        now = time.monotonic()
        self._seen.append((now, came))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW:
            self._seen.popleft()
        if (now - self._shown < SHOW_EVERY) if left else (self._shown == self._started):
            return ""
        self._shown = now
        all_of_it = came + left
        done = f"{verb} {came / 1e6:.0f} of {all_of_it / 1e6:.0f} MB ({100 * came // max(all_of_it, 1)} %), {files}"
        if not left:
            return f"{done}, in {_clock(now - self._started)}"
        since, before = self._seen[0]
        rate = (came - before) / max(now - since, 1e-3)  # bytes per second
        return f"{done}, {rate / 1e6:.1f} MB/s, {f'ETA {_clock(left / rate)}' if rate > 0 else 'no ETA'}"


def _clock(seconds: float) -> str:
    """Seconds as a person reads them: 41 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 6000 else f"{whole // 3600} h {whole % 3600 // 60} min"
