"""A limit on pushes: never more at once, nobody is kept out for ever, and who waits is told so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils import stack_transfers
from ansible.module_utils.stack_installs import StackError
from ansible.module_utils.stack_transfers import POLL, lock_folder, transfer, try_lock

HOLDER = """
import conftest, sys, time
from ansible.module_utils.stack_transfers import transfer
with transfer(1, waits=print, folder=sys.argv[1]):
    print("pushes", flush=True)
    time.sleep(600)
"""


def never(seconds: float) -> None:
    raise AssertionError(f"waited {seconds} s")


def test_as_many_as_the_limit_push_at_once(tmp_path: Path) -> None:
    with transfer(2, never, str(tmp_path)), transfer(2, never, str(tmp_path)):
        pass


def test_one_more_waits_for_its_turn_and_says_for_how_long(tmp_path: Path) -> None:
    waited: list[float] = []
    first = try_lock(str(tmp_path / "0.lock"))

    def sleep(seconds: float) -> None:
        assert seconds == POLL
        if len(waited) == 3:
            os.close(first)

    with transfer(1, waited.append, str(tmp_path), sleep):
        assert waited == [0.0, POLL, 2 * POLL]
        assert try_lock(str(tmp_path / "0.lock")) == -1
    with transfer(1, never, str(tmp_path)):
        pass


def test_a_push_that_fails_gives_its_turn_back(tmp_path: Path) -> None:
    with pytest.raises(StackError), transfer(1, never, str(tmp_path)):
        raise StackError("the connection broke")
    with transfer(1, never, str(tmp_path)):
        pass


def test_a_push_that_is_killed_gives_its_turn_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as holder:
        assert holder.stdout and holder.stdout.readline() == "pushes\n"
        assert try_lock(str(tmp_path / "0.lock")) == -1
        holder.kill()
    with transfer(1, never, str(tmp_path)):
        pass


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    with transfer(0, never, str(tmp_path)):
        assert os.listdir(tmp_path) == []


def test_the_locks_of_somebody_else_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_transfers.tempfile, "gettempdir", lambda: str(tmp_path))
    assert os.stat(lock_folder()).st_mode & 0o777 == 0o700
    other = tmp_path / "elsewhere"
    other.mkdir()
    os.rmdir(lock_folder())
    os.symlink(other, tmp_path / f"stack-transfers-{os.getuid()}")
    with pytest.raises(StackError, match="belongs to somebody else"):
        lock_folder()
