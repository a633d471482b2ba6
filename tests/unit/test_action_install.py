"""Who builds: the run tells its name, takes a dead run's place, and says when it waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from ansible.module_utils.stack_installs import remove_tree
from ansible.module_utils.stack_lease import this_run


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
    """A lease of another run."""
    holder = {**this_run(), "server": "gpu2", **changes}
    holder |= {"run": "another", "host": "gpu2.example.org"}
    lease(tmp_path).parent.mkdir(parents=True)
    (tmp_path / "prefix/.stack.json").write_text('{"stack": "mine"}')
    lease(tmp_path).write_text(json.dumps(holder))
    return holder


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
    assert said == "[gpu1] base: gpu2.example.org is building it in this shared prefix; waiting for that"


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
