"""Leases: one builder at a time, and one that is gone is replaced, not sooner and not later than is safe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import stack_lease
from ansible.module_utils.stack_lease import (
    BEAT,
    NOTICE,
    STALE,
    WATCH,
    acquire,
    beat,
    described,
    has_died,
    holder_of,
    is_here,
    is_lost,
    is_told_dead,
    keep_beating,
    look,
    new_probe,
    probed,
    release,
    same,
    set_aside,
    tell_dead,
    this_run,
)
from ansible.module_utils.stack_lookup import is_heart, mentions, processes_at

Holder = dict[str, Any]

FIRST = {"run": "first", "host": "gpu1", "server": "gpu1"}
SECOND = {"run": "second", "host": "gpu2", "server": "gpu2"}


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


@pytest.mark.parametrize("seconds", [0, STALE + 60, -3600])
def test_a_lease_is_never_taken_for_its_age_alone(lease: Path, seconds: float) -> None:
    """Old it may be because the file server did not answer: whoever takes it over has watched it."""
    acquire(str(lease), FIRST)
    age(lease, seconds)
    assert acquire(str(lease), SECOND) == FIRST


def test_the_lease_of_a_holder_of_whom_nothing_is_left_is_free(lease: Path) -> None:
    acquire(str(lease), FIRST)
    assert acquire(str(lease), SECOND, dead={**FIRST, "host": "gpu3"}) == FIRST
    assert acquire(str(lease), SECOND, dead=FIRST) == {}


@pytest.mark.parametrize("changes", [{"run": "third"}, {"host": "gpu3"}, {"server": "gpu3"}])
def test_another_run_and_another_server_of_the_same_run_are_other_holders(lease: Path, changes: Holder) -> None:
    """Also two servers that say the same name of themselves."""
    acquire(str(lease), FIRST)
    assert acquire(str(lease), {**FIRST, **changes}) == FIRST
    assert same(FIRST, {**FIRST, "since": "later"})
    assert not same({}, {})


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_broken_lease_is_replaced(lease: Path, content: str) -> None:
    lease.write_text(content)
    assert acquire(str(lease), FIRST) == {}


def test_of_two_that_find_it_lost_one_wins(lease: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one renames the lease away when the faster one has just taken it: it must give it back."""
    dead = {"run": "dead", "host": "gpu0", "server": "gpu0"}
    acquire(str(lease), dead)
    rename = os.rename
    results = []

    def other_is_faster(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        results.append(acquire(str(lease), FIRST, dead))
        rename(source, target)

    monkeypatch.setattr(os, "rename", other_is_faster)
    results.append(acquire(str(lease), SECOND, dead))
    assert results == [{}, FIRST]
    assert os.listdir(lease.parent) == [lease.name]


def test_a_lease_that_changes_hands_while_it_is_read_is_not_lost(lease: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given back after it was seen, taken by a third before it is read as nobody's."""
    acquire(str(lease), {"run": "done", "server": "gpu0"})
    seen = stack_lease.look

    def between(path: str) -> tuple[Holder, float]:
        monkeypatch.setattr(stack_lease, "look", seen)
        release(str(lease))
        acquire(str(lease), FIRST)
        return {}, 1.0

    monkeypatch.setattr(stack_lease, "look", between)
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


def test_age_is_told_by_the_file_server_not_by_this_servers_clock(lease: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire(str(lease), FIRST)
    age(lease, 100)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    probe = new_probe(str(lease))
    assert 99 < probed(probe) - look(str(lease))[1] < 160
    os.unlink(probe)


def test_nobodys_lease_has_no_holder_and_no_heartbeat(lease: Path) -> None:
    assert look(str(lease)) == ({}, 0.0)


# --- Death ------------------------------------------------------------------------------------------------------------

LONG = 10 * STALE
IDLE, OLD = 120.0, 600.0  # seconds; shorter than in life, so that a test need not live through a day


@pytest.mark.parametrize(
    ("age", "quiet", "dead", "lost"),
    [
        (0, 0, False, False),  # fresh
        (STALE - 1, WATCH, False, False),  # silent, not for long enough
        (STALE + 1, 0, False, False),  # the first look: the file server may have been away, and everybody silent
        (STALE + 1, WATCH - 1, False, False),
        (STALE + 1, WATCH, False, True),  # stale
        (LONG, WATCH, False, True),
        (-3600, LONG, False, False),  # a heartbeat in the future: of another clock, or set by hand
        (0, 0, True, False),  # known to be dead: what it left running may still write there
        (WATCH - 1, WATCH, True, False),
        (WATCH + 1, WATCH - 1, True, False),
        (WATCH + 1, WATCH, True, True),
    ],
)
def test_a_holder_is_lost_when_it_was_silent_and_seen_to_be(age: float, quiet: float, dead: bool, lost: bool) -> None:
    assert is_lost(age, quiet, dead) == lost


def test_a_known_death_is_told_to_the_heart_of_that_holder_alone(lease: Path) -> None:
    assert not is_told_dead(str(lease), FIRST)
    tell_dead(str(lease), FIRST)
    assert is_told_dead(str(lease), FIRST)
    assert not is_told_dead(str(lease), SECOND)
    release(str(lease))
    assert not is_told_dead(str(lease), FIRST)
    assert os.listdir(lease.parent) == []


class Server:
    """A heart on a server whose time is told by a test: what happens when, and when the heart beat."""

    def __init__(self, lease: Path, monkeypatch: pytest.MonkeyPatch, works_until: float = 0.0) -> None:
        self.lease, self.now, self.works_until = lease, 1000.0, 1000.0 + works_until
        self.events: list[tuple[float, Callable[[], object]]] = []
        self.beats: list[float] = []
        self.published = float("inf")
        acquire(str(lease), FIRST)
        self.file_server = os.utime
        monkeypatch.setattr(os, "utime", self.utime)
        monkeypatch.setattr(stack_lease, "IDLE", IDLE)
        monkeypatch.setattr(stack_lease, "OLD", OLD)

    def at(self, seconds: float, what: Callable[[], object]) -> None:
        self.events.append((1000.0 + seconds, what))

    def utime(self, path: str) -> None:
        self.beats.append(self.now - 1000.0)
        self.file_server(path, (self.now, self.now))

    def others_beat(self) -> None:
        self.file_server(self.lease, (self.now, self.now))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for event in [event for event in self.events if event[0] <= self.now]:
            self.events.remove(event)
            event[1]()

    def live(self) -> float:
        """Run the heart to its end; returns for how many seconds it lived."""
        keep_beating(
            str(self.lease),
            FIRST,
            works=lambda: self.now < self.works_until,
            done=lambda: self.now > self.published,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        return self.now - 1000.0


@pytest.fixture
def server(lease: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(lease, monkeypatch, works_until=3 * IDLE)


def test_a_heart_beats_as_long_as_the_build_takes_and_ends_with_it(server: Server, lease: Path) -> None:
    server.at(2 * IDLE, lambda: release(str(lease)))
    assert server.live() == 2 * IDLE
    gaps = [later - earlier for earlier, later in zip(server.beats, server.beats[1:], strict=False)]
    assert min(gaps) >= BEAT and max(gaps) <= BEAT + NOTICE < WATCH / 2
    assert server.beats[-1] > 2 * IDLE - 2 * BEAT


def test_a_heart_ends_when_its_lease_was_taken_over(server: Server, lease: Path) -> None:
    def take_over() -> None:
        set_aside(str(lease), FIRST)
        acquire(str(lease), SECOND)

    server.at(25, take_over)
    assert server.live() == 25
    assert look(str(lease))[0] == SECOND


def test_a_builder_that_waits_for_slower_servers_of_its_run_is_alive_for_a_while(server: Server, lease: Path) -> None:
    server.works_until = 1000.0
    server.at(2 * IDLE, lambda: release(str(lease)))
    server.live()
    assert IDLE - 2 * BEAT < server.beats[-1] <= IDLE


@pytest.mark.parametrize("by", ["its next command", "a push from the controller"])
def test_a_heart_that_fell_silent_goes_on_with_the_build(server: Server, lease: Path, by: str) -> None:
    """Returned: nobody has taken it over meanwhile."""
    server.works_until = 1000.0
    if by == "its next command":
        server.at(2 * IDLE, lambda: setattr(server, "works_until", server.now + 60))
    else:
        server.at(2 * IDLE, server.others_beat)
    server.at(2 * IDLE + 120, lambda: release(str(lease)))
    server.live()
    assert server.beats[-1] >= 2 * IDLE + 100


def test_a_heart_whose_run_is_known_to_be_dead_gives_the_lease_back_when_nothing_works_any_more(
    server: Server, lease: Path
) -> None:
    server.works_until = 1000.0 + 300
    server.at(100, lambda: tell_dead(str(lease), FIRST))
    assert 300 < server.live() <= 300 + 2 * BEAT + 2 * NOTICE
    assert not lease.exists()
    assert is_told_dead(str(lease), FIRST), "others that wait must learn that it died, not that it failed"


def test_a_heart_notices_by_itself_that_a_run_on_this_machine_has_died(
    server: Server, lease: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_lease, "has_died", lambda holder: server.now > 1100.0)
    server.works_until = 1000.0
    assert 100 < server.live() <= 100 + 2 * BEAT
    assert not lease.exists()


def test_a_heart_gives_back_the_lease_of_a_run_that_was_killed_when_it_had_just_published(
    server: Server, lease: Path
) -> None:
    server.works_until = server.published = 1000.0 + 50
    assert 50 < server.live() <= 50 + 2 * BEAT
    assert not lease.exists()


def test_a_note_about_an_earlier_holder_does_not_stop_this_one(server: Server, lease: Path) -> None:
    server.works_until = 1000.0
    tell_dead(str(lease), SECOND)
    server.at(100, lambda: release(str(lease)))
    assert server.live() == 100


def test_a_heart_outlasts_a_file_server_that_is_away(
    server: Server, lease: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = stack_lease.look

    def away(path: str) -> tuple[Holder, float]:
        if 50 < server.now - 1000.0 < 300:
            raise OSError(5, "Input/output error")
        found: tuple[Holder, float] = seen(path)
        return found

    monkeypatch.setattr(stack_lease, "look", away)
    server.at(400, lambda: release(str(lease)))
    assert server.live() == 400
    assert max(server.beats) > 380
    assert not [moment for moment in server.beats if 60 < moment < 300]


def test_no_heart_beats_for_longer_than_any_build_takes(server: Server) -> None:
    server.works_until = 1000.0 + 2 * OLD
    assert server.live() <= OLD + 2 * BEAT


BUILDER = """
import conftest, sys
from ansible.module_utils.stack_lease import acquire, start_heart
acquire(sys.argv[1], {"run": "first"})
start_heart(sys.argv[1], {"run": "first"}, "/an/install")
"""


def hearts(folder: Path) -> list[str]:
    """Process ids of the hearts whose environment names a folder."""
    return [
        process
        for process in filter(str.isdigit, os.listdir("/proc"))
        if is_heart(process) and any(str(folder) in text for text in mentions(process))
    ]


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_heart_outlives_its_builder_ends_with_the_lease_and_is_no_work_in_progress(lease: Path) -> None:
    """It has the environment of a build, which names the prefix, and holds nothing that could not be removed."""
    environment = os.environ | {"TMPDIR": str(lease.parent)}
    command = [sys.executable, "-c", BUILDER, str(lease)]
    subprocess.run(command, env=environment, cwd=Path(__file__).parent, check=True, capture_output=True)
    eventually(lambda: len(hearts(lease.parent)) == 1)
    assert processes_at(str(lease.parent)) == []
    release(str(lease))
    eventually(lambda: not hearts(lease.parent))


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


def test_what_runs_on_this_machine_since_it_was_started_can_be_seen() -> None:
    here = holder_of(this_run("gpu1"))
    assert is_here(here)
    assert not is_here({**here, "server_machine": "before the restart"})
    assert not is_here({})


@pytest.mark.parametrize(
    ("holder", "text"),
    [
        (
            {
                "host": "gpu1",
                "server": "gpu1.example.org",
                "controller": "laptop",
                "pid": 7,
                "since": "2018-05-25 08:03:12",
            },
            "gpu1, gpu1.example.org (run from laptop, process 7, since 08:03:12)",
        ),
        ({"host": "gpu1", "server": "gpu1", "controller": "laptop"}, "gpu1 (run from laptop)"),
        ({"server": "gpu1"}, "gpu1 (run from another controller)"),
        ({}, "another server (run from another controller)"),
    ],
)
def test_a_holder_is_named_by_its_server_its_run_and_since_when(holder: Holder, text: str) -> None:
    assert described(holder) == text


@pytest.mark.parametrize("holder", [{}, {"run": ""}, {"run": "x", "server": "y"}])
def test_a_holder_that_says_nothing_counts_as_alive(holder: Holder) -> None:
    assert not has_died(holder)
