"""Module and action plugin `check_ladder`: a long ladder lives by itself, is seen, and is not started twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from run_module import Running, run_module

SERVER = socket.gethostname()
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
# In place of a generation's: called with --json REPORT --progress FILE.
PROGRAM = r"""#!/bin/sh
generation=$(cd "$(dirname "$0")/.." && pwd -P)
echo started >> "$generation/starts"
echo "said on the way"
printf '{"generation": "%s", "rung": "operator", "check": "test_op", "since": 1, "notice": "It compiles."}' \
  "$generation" > "$4"
while [ -e "$generation/hold" ]; do sleep 0.05; done
[ -e "$generation/break" ] && exit 1
printf '{"generation": "%s", "rungs": [{"rung": "files", "checks": [{"name": "a", "status": "passed"}]}]}' \
  "$generation" > "$2.new"
mv "$2.new" "$2"
"""


class Generation:
    """A generation whose ladder does what the test tells it by files."""

    def __init__(self, prefix: Path, number: int = 1) -> None:
        self.prefix = prefix
        self.path = prefix / "generations" / str(number)
        (self.path / "bin").mkdir(parents=True)
        program = self.path / "bin" / "check-ladder"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        (self.path / "check_ladder.py").write_text("parser.add_argument('--progress')")
        (self.path / "receipt.json").write_text(json.dumps({"digest": f"digest {number}"}))
        self.arguments: dict[str, Any] = {"generation": str(self.path), "prefix": str(prefix)}
        self.arguments["environment"] = ENVIRONMENT

    @property
    def starts(self) -> int:
        path = self.path / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def hold(self) -> Path:
        return self.path / "hold"

    def action(self, slice_seconds: float = 30) -> Action:
        action = Action("check_ladder", **self.arguments)
        action.plugin.SLICE = slice_seconds  # type: ignore[attr-defined]
        return action


@pytest.fixture
def generation(tmp_path: Path) -> Iterator[Generation]:
    made = Generation(tmp_path / "prefix")
    yield made
    made.hold.unlink(missing_ok=True)  # ends a ladder that a failed test left


def wait_for(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{path} did not appear")


def test_a_short_ladder_costs_one_remote_call_and_is_recorded(generation: Generation) -> None:
    action = generation.action()
    result = action.run()
    assert result["changed"]
    assert (len(action.modules), action.shown, generation.starts) == (1, [], 1)
    recorded = json.loads((generation.prefix / "checks" / SERVER / "ladder.json").read_text())
    assert recorded == result["ladder"]
    assert recorded["digest"] == "digest 1"
    assert recorded["rungs"][0]["rung"] == "files"


def test_the_ladder_of_an_older_release_is_climbed_without_progress(generation: Generation) -> None:
    """Somebody may have gone back to such a generation; argparse would end its ladder: unrecognized arguments."""
    (generation.path / "check_ladder.py").write_text("parser.add_argument('--json')")
    program = generation.path / "bin" / "check-ladder"
    program.write_text(
        PROGRAM.replace('> "$4"', "> /dev/null").replace(
            "#!/bin/sh\n", '#!/bin/sh\n[ $# = 2 ] || { echo "unrecognized arguments: $3" >&2; exit 2; }\n'
        )
    )
    result = generation.action().run()
    assert result["ladder"]["digest"] == "digest 1", result
    assert generation.starts == 1


def test_the_same_outcome_again_is_climbed_again_and_no_change(generation: Generation) -> None:
    generation.action().run()
    assert not generation.action().run()["changed"]
    assert generation.starts == 2


def test_check_mode_climbs_nothing(generation: Generation) -> None:
    assert run_module("check_ladder", check=True, **generation.arguments)["changed"]
    assert generation.starts == 0


def test_a_long_ladder_is_seen_and_said_why(generation: Generation) -> None:
    generation.hold.touch()
    (generation.prefix / "var/cache/cuda").mkdir(parents=True)
    (generation.prefix / "var/cache/cuda/index").write_bytes(bytes(3_000_000))
    action = generation.action(slice_seconds=0.2)
    release = threading.Timer(2, generation.hold.unlink)
    release.start()
    result = action.run()
    release.join()
    lines = action.shown
    assert result["ladder"]["digest"] == "digest 1"
    assert len(action.modules) > 1
    assert generation.starts == 1
    # On a busy machine, a first slice of time may end before the ladder says anything.
    notice = lines.index("[gpu1] check ladder: It compiles.")
    assert lines.count(lines[notice]) == 1
    assert lines[notice + 1].startswith("[gpu1] check ladder: operator test_op, ")
    assert lines[notice + 1].endswith("compilation cache 3 MB")


def test_a_broken_connection_does_not_end_it_and_the_next_run_takes_its_result(generation: Generation) -> None:
    generation.hold.touch()
    module = Running("check_ladder", **generation.arguments)
    wait_for(generation.path / "starts")
    os.kill(module._process, signal.SIGKILL)
    while not module.ended():
        time.sleep(0.01)
    running = run_module("check_ladder", **generation.arguments, seconds=0.1)
    assert running["climbing"]["check"] == "test_op"
    generation.hold.unlink()
    assert run_module("check_ladder", **generation.arguments, follow=True)["ladder"]["digest"] == "digest 1"
    assert generation.starts == 1


def test_another_generations_ladder_is_waited_for(generation: Generation) -> None:
    generation.hold.touch()
    assert run_module("check_ladder", **generation.arguments, seconds=0.1)["climbing"]
    new = Generation(generation.prefix, 2)
    assert run_module("check_ladder", **new.arguments, seconds=0.1)["climbing"]
    assert new.starts == 0
    generation.hold.unlink()
    assert run_module("check_ladder", **new.arguments, follow=True)["ladder"]["digest"] == "digest 2"
    assert (generation.starts, new.starts) == (1, 1)


def test_a_ladder_that_breaks_off_says_what_it_said(generation: Generation) -> None:
    (generation.path / "break").touch()
    result = run_module("check_ladder", **generation.arguments)
    assert result["failed"]
    assert "broke off" in result["msg"]
    assert "said on the way" in result["msg"]
    assert not (generation.prefix / "checks").exists()


def test_a_generation_without_a_ladder_is_one_sentence(generation: Generation) -> None:
    os.unlink(generation.path / "bin/check-ladder")
    result = run_module("check_ladder", **generation.arguments)
    assert result["failed"]
    assert "cannot be run" in result["msg"]


@pytest.mark.parametrize("status", ["passed", "failed"])
def test_a_build_is_judged_in_one_call(tmp_path: Path, status: str) -> None:
    check = {"name": "a", "status": status, "reason": "it is broken", "remedy": "mend it"}
    said = json.dumps({"rungs": [{"rung": "import", "checks": [check]}]})
    action = Action(
        "check_ladder", prefix=str(tmp_path), environment=ENVIRONMENT, python=sys.executable, program=f"print({said!r})"
    )
    result = action.run()
    assert len(action.modules) == 1
    assert bool(result.get("failed")) == (status == "failed")
    if status == "failed":
        assert "import FAILED, a: it is broken Remedy: mend it" in result["msg"]
