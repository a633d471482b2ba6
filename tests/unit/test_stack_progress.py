"""Progress: a rate that was measured, and times to be read at a glance."""

from __future__ import annotations

import time

import pytest
from ansible.module_utils.stack_progress import Progress, _clock


def test_the_eta_follows_the_rate_of_the_last_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress, lines = Progress(), []
    for seconds, came in ((10, 100), (20, 200), (60, 240), (95, 275), (130, 275), (165, 275)):
        now[0] = 1000.0 + seconds
        lines.append(progress.line("got", came * 10**6, (1000 - came) * 10**6, "x").partition("x, ")[2])
    assert lines == [
        "10.0 MB/s, ETA 90 s",
        "10.0 MB/s, ETA 80 s",
        "1.0 MB/s, ETA 12 min 40 s",
        "1.0 MB/s, ETA 12 min 5 s",
        "0.0 MB/s, no ETA",
        "0.0 MB/s, no ETA",
    ]
    assert progress.line("got", 10**9, 0, "x") == "got 1000 of 1000 MB (100 %), x, in 2 min 45 s"


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (99, "99 s"), (100, "1 min 40 s"), (7260, "2 h 1 min")])
def test_times_are_read_at_a_glance(seconds: float, shown: str) -> None:
    assert _clock(seconds) == shown
