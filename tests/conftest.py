"""Which tests run in one process where several share the work (`pytest --numprocesses auto --dist loadgroup`)."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module's tests stay together, for some tell one story; those that need the whole first install share it."""
    for item in items:
        needs_first_run = "first_run" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("first_run" if needs_first_run else item.nodeid.partition("::")[0]))
