"""How the tests are spread over the processes of `pytest --numprocesses … --dist loadfile`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[1]


class Scheduling(LoadFileScheduling):
    """All tests of a file in one process, and in the same one those of all files that share the server of `first_run`,
    whose installation takes a minute in each process that asks for it."""

    def _split_scope(self, nodeid: str) -> str:
        file, _colons, _test = nodeid.partition("::")
        return "first_run" if shares_the_first_run(file) else file


@cache
def shares_the_first_run(file: str) -> bool:
    """Whether tests of a file ask for the fixture, or for one that rests on it."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return "first_run: FirstRun" in text or "things: Site" in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """The scheduler of `--dist loadfile`."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None
