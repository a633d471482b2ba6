"""Leases: one builder at a time, and a dead or silent one is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import stack_lease
from ansible.module_utils.stack_lease import STALE, acquire, beat, has_died, holder_of, release, this_run

Holder = dict[str, Any]

FIRST = {"run": "first", "server": "gpu1"}
SECOND = {"run": "second", "server": "gpu2"}


@pytest.fixture
def lease(tmp_path: Path) -> Path:
    return tmp_path / "role-abc.json"


def age(path: Path, seconds: float) -> None:
    """Set a lease's heartbeat back."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_first_gets_it_and_the_second_learns_who_has_it(lease: Path) -> None:
    assert acquire(str(lease), FIRST) == {}
    assert acquire(str(lease), SECOND) == FIRST
    assert os.listdir(lease.parent) == [lease.name]


def test_a_lease_given_back_is_free(lease: Path) -> None:
    acquire(str(lease), FIRST)
    release(str(lease))
    release(str(lease))
    assert acquire(str(lease), SECOND) == {}


def test_the_same_holder_gets_it_again_and_renews_it(lease: Path) -> None:
    acquire(str(lease), FIRST)
    age(lease, STALE / 2)
    assert acquire(str(lease), FIRST) == {}
    assert time.time() - lease.stat().st_mtime < 60


@pytest.mark.parametrize(("seconds", "taken"), [(0, False), (STALE - 60, False), (STALE + 60, True), (-3600, False)])
def test_only_a_silent_holder_is_replaced(lease: Path, seconds: float, taken: bool) -> None:
    acquire(str(lease), FIRST)
    age(lease, seconds)
    assert acquire(str(lease), SECOND) == ({} if taken else FIRST)


def test_a_dead_run_is_replaced_at_once(lease: Path) -> None:
    acquire(str(lease), FIRST)
    assert acquire(str(lease), SECOND, dead="another") == FIRST
    assert acquire(str(lease), SECOND, dead="first") == {}


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_broken_lease_is_replaced(lease: Path, content: str) -> None:
    lease.write_text(content)
    assert acquire(str(lease), FIRST) == {}


def test_age_is_told_by_the_file_server_not_by_this_servers_clock(lease: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire(str(lease), FIRST)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert acquire(str(lease), SECOND) == FIRST


def test_of_two_that_find_it_silent_one_wins(lease: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one renames the lease away when the faster one has just taken it: it must give it back."""
    acquire(str(lease), {"run": "dead", "server": "gpu0"})
    age(lease, STALE * 2)
    rename = os.rename
    results = []

    def other_is_faster(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        results.append(acquire(str(lease), FIRST))
        rename(source, target)

    monkeypatch.setattr(os, "rename", other_is_faster)
    results.append(acquire(str(lease), SECOND))
    assert results == [{}, FIRST]
    assert os.listdir(lease.parent) == [lease.name]


def test_a_lease_that_changes_hands_while_it_is_read_is_not_lost(lease: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given back after it was seen, taken by a third before it is read as nobody's."""
    acquire(str(lease), {"run": "done", "server": "gpu0"})
    read = stack_lease.read_json

    def between(path: str) -> Holder:
        monkeypatch.setattr(stack_lease, "read_json", read)
        release(str(lease))
        answer: Holder = read(path)
        acquire(str(lease), FIRST)
        return answer

    monkeypatch.setattr(stack_lease, "read_json", between)
    assert acquire(str(lease), SECOND) == FIRST


def test_of_many_at_once_one_wins(lease: Path) -> None:
    results: list[Holder] = []
    holders = [{"run": str(number), "server": "gpu"} for number in range(16)]
    threads = [threading.Thread(target=lambda h=h: results.append(acquire(str(lease), h))) for h in holders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count({}) == 1
    assert os.listdir(lease.parent) == [lease.name]


def test_a_heartbeat_renews_the_holders_leases_only(lease: Path) -> None:
    other = lease.with_name("other.json")
    acquire(str(lease), FIRST)
    acquire(str(other), SECOND)
    for path in (lease, other):
        age(path, 1000)
    beat(str(lease.parent), FIRST)
    assert time.time() - lease.stat().st_mtime < 60
    assert time.time() - other.stat().st_mtime > 900
    beat(str(lease.parent / "none"), FIRST)


# --- Runs -------------------------------------------------------------------------------------------------------------


WORKER = "import conftest, json; from ansible.module_utils.stack_lease import this_run; print(json.dumps(this_run()))"
PLAYBOOK = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}], check=True)"


def ended_run() -> Holder:
    """What a worker told of the ansible-playbook whose child it was, here a Python that has ended since."""
    command = [sys.executable, "-c", PLAYBOOK]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    holder: Holder = json.loads(done.stdout)
    return holder


def test_a_run_is_the_same_for_all_its_workers_and_another_than_the_next() -> None:
    assert this_run() == this_run()
    assert this_run()["pid"] == os.getppid()
    assert ended_run()["run"] != ended_run()["run"]


def test_a_run_that_ended_has_died() -> None:
    assert has_died(holder_of(ended_run()))
    assert not has_died(holder_of(this_run()))


@pytest.mark.parametrize("changes", [{"controller": "elsewhere"}, {"machine": "before the restart"}, {"machine": ""}])
def test_what_cannot_be_known_counts_as_alive(changes: Holder) -> None:
    assert not has_died({**ended_run(), **changes})


def test_a_reused_process_number_is_not_mistaken() -> None:
    assert has_died({**this_run(), "started": "17"})


@pytest.mark.parametrize("holder", [{}, {"run": ""}, {"run": "x", "server": "y"}])
def test_a_holder_that_says_nothing_counts_as_alive(holder: Holder) -> None:
    assert not has_died(holder)
