"""Who builds: the run tells its name, takes a dead run's place, and says when it waits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from ansible.module_utils.stack_installs import remove_tree
from ansible.module_utils.stack_lease import holder_of, this_run


def action(tmp_path: Path, name: str = "install_begin", state: str = "absent", **options: Any) -> Action:
    install = {"path": str(tmp_path / "prefix/opt/base/1.0-aaa"), "digest": "aaa", "requires": [], "disk_bytes": 1}
    install |= {"state": state, "role": "base", "version": "1.0", "recipe": 1, "inputs": {}}
    given = {"prefix": str(tmp_path / "prefix"), "role": "base", "installs": {"base": install}}
    return Action(name, **{**given, **options})


def begin(tmp_path: Path, **options: Any) -> Action:
    return action(tmp_path, stack="mine", **options)


def lease(tmp_path: Path) -> Path:
    return tmp_path / "prefix/var/lease/base-aaa.json"


def hold(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A lease of another run, taken on this server."""
    holder = {**holder_of(this_run("gpu2.example.org")), "server": "gpu2", "run": "another", **changes}
    lease(tmp_path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "prefix/.stack.json").write_text('{"stack": "mine"}')
    lease(tmp_path).write_text(json.dumps(holder))
    return holder


@pytest.fixture(autouse=True)
def no_hearts(tmp_path: Path) -> Iterator[None]:
    """They end when their leases are gone."""
    yield
    lease(tmp_path).unlink(missing_ok=True)


def test_an_install_that_is_there_costs_no_remote_call(tmp_path: Path) -> None:
    beginning = begin(tmp_path, state="present")
    assert beginning.run()["build"] is False
    assert beginning.modules == []


def test_a_lease_names_this_run(tmp_path: Path) -> None:
    assert begin(tmp_path).run()["build"]
    assert json.loads(lease(tmp_path).read_text())["run"] == this_run()["run"]


def test_the_run_that_began_publishes(tmp_path: Path) -> None:
    path = Path(begin(tmp_path).run()["path"])
    (path / "file").touch()
    published = action(tmp_path, "install_publish", cache=str(tmp_path / "prefix/var/cache")).run()
    assert published["receipt"]["role"] == "base"
    remove_tree(str(path))


def test_a_dead_runs_place_is_taken(tmp_path: Path) -> None:
    hold(tmp_path, started="long ago")
    beginning = begin(tmp_path)
    assert beginning.run()["build"]
    assert beginning.shown == []


@pytest.mark.parametrize("changes", [{}, {"controller": "elsewhere", "started": "long ago"}])
def test_a_living_or_unknown_run_is_waited_for_and_that_is_said(tmp_path: Path, changes: dict[str, Any]) -> None:
    holder = hold(tmp_path, **changes)
    beginning = begin(tmp_path)
    assert beginning.run()["held_by"] == holder
    (said,) = beginning.shown
    assert said.startswith("[gpu1] base: gpu2.example.org, gpu2 (run from ")
    assert said.endswith(") builds it in this shared prefix; waits for that")


class Clock:
    """Slices of waiting that take no time; `then` happens after each."""

    def __init__(self, waiting: Action, *then: Callable[[], object]) -> None:
        self.seen: list[dict[str, Any]] = []
        module, happens = waiting._execute_module, iter(then)

        def slice_of_time(**given: Any) -> dict[str, Any]:
            given["module_args"]["seconds"] = 0
            self.seen.append(given["module_args"])
            result = module(**given)
            if "held_by" in result:
                next(happens)()
            return result

        waiting._execute_module = slice_of_time  # type: ignore[method-assign, assignment]


def test_who_waits_shows_for_whom_again_and_again(tmp_path: Path) -> None:
    holder = hold(tmp_path, server_machine="another")
    waiting = begin(tmp_path, wait=holder)
    clock = Clock(waiting, lambda: None, lease(tmp_path).unlink)
    assert waiting.run()["lost"] == holder
    first, second, end = waiting.shown
    assert first.startswith("[gpu1] base: waits for gpu2.example.org, gpu2 (run from ")
    assert re.search(r", process \d+, since [0-9:]{8}\), 0 s so far; last heartbeat \d s ago$", second)
    assert end.endswith(" does not go on with it")
    assert [seen["dead"] for seen in clock.seen] == [{}, {}, {}]


def test_a_run_that_dies_while_another_waits_is_noticed(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    waiting = begin(tmp_path, wait=holder)
    dead = {**holder, "started": "long ago"}
    Clock(waiting, lambda: hold(tmp_path, started="long ago", since=holder["since"]), lambda: None)
    assert waiting.run()["lost"] == dead
    assert any(", whose run has died, " in line for line in waiting.shown)


# --- install_failed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stderr", "begins", "ends"),
    [
        ("gcc: not found", "base is not installed: ", "the task above failed."),
        ("cp: No space left on device", "The disk is full: base needs 0 MB below ", "a folder on a larger disk."),
    ],
)
def test_a_build_that_failed_says_what_to_do(tmp_path: Path, stderr: str, begins: str, ends: str) -> None:
    assert begin(tmp_path).run()["build"]
    failed = {"ansible_failed_result": {"msg": "rc 1", "stderr": stderr}}
    failing = action(tmp_path, "install_failed")
    failing.variables = failed
    result = failing.run()
    assert result["failed"]
    assert result["msg"].startswith(begins)
    assert result["msg"].endswith(ends)
    assert stderr not in result["msg"], "the task that failed has said it"
    assert not lease(tmp_path).exists()
    assert failing.task.environment[-1] == {"TMPDIR": ""}, "its module may be unpacked on the disk that is full"


# --- ladder_report ----------------------------------------------------------------------------------------------------

LADDER = {
    "rungs": [
        {"rung": "import", "status": "passed", "checks": [{"name": "caffe2", "status": "passed"}]},
        {
            "rung": "operator",
            "status": "failed",
            "checks": [
                {"name": "narrow", "status": "failed", "reason": "no kernel image", "remedy": "Use another GPU."},
                {"name": "other", "status": "passed"},
            ],
        },
    ]
}


def test_failed_rungs_stop_the_run_with_cause_and_remedy() -> None:
    result = Action("ladder_report", ladder=LADDER, stop_at=["import", "operator"]).run()
    assert result["failed"]
    assert result["msg"].endswith("operator FAILED, narrow: no kernel image Remedy: Use another GPU.")
    assert result["ladder"] == LADDER


@pytest.mark.parametrize(("ladder", "rungs"), [(LADDER, ["import"]), ({}, ["import", "operator"])])
def test_other_rungs_do_not(ladder: dict[str, Any], rungs: list[str]) -> None:
    reporting = Action("ladder_report", ladder=ladder, stop_at=rungs)
    assert "failed" not in reporting.run()
    assert reporting.modules == []
