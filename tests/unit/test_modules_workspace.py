"""Workspaces: made once, whole or not at all, and never touched again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.stack_generations import flip
from ansible.module_utils.stack_installs import claim, publish, read_json, remove_tree
from run_module import run_module

COMMIT, OTHER = "a" * 40, "b" * 40


class Lab:
    """A prefix with a generation whose Detectron is of COMMIT."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        claim(str(prefix), "mine")
        self.generation(1)

    def generation(self, number: int, commit: str = COMMIT) -> None:
        """A generation with a Detectron of its own, made current."""
        folder = self.prefix / "generations" / str(number)
        folder.mkdir()
        for role in ("caffe2", "cocoapi", "detectron"):
            install = self.prefix / f"opt/{role}/{number}-{'0' * 12}"
            (install / "lib").mkdir(parents=True)
            (install / "lib/a.py").touch()
            publish(str(install), {"role": role, "inputs": {"commit": commit}})
            (folder / role).symlink_to(install)
        (folder / "expect.json").write_text(json.dumps({"detectron": {"tests": 12}}))
        (folder / "activate.sh").write_text(f'export DETECTRON_GENERATION={folder} DETECTRON=installed PATH="$PATH"\n')
        publish(str(folder), {"number": number, "digest": f"d{number}"})
        flip(str(self.prefix), str(folder))

    def run(self, state: str, check: bool = False, name: str = "alice", **given: Any) -> dict[str, Any]:
        return run_module("workspace", check, prefix=str(self.prefix), workspace=name, state=state, **given)

    def build(self, begun: dict[str, Any]) -> None:
        """What the role does between beginning and finishing."""
        tree = Path(begun["build"], "detectron")
        (tree / "detectron/core").mkdir(parents=True)
        for name in ("setup.py", "detectron/core/config.py", "detectron/core/test.py"):
            (tree / name).write_text(f"# {name}\n")
            (tree / name).chmod(0o666)
        (tree / "README.md").symlink_to("setup.py")

    def finish(self, begun: dict[str, Any], **given: Any) -> dict[str, Any]:
        facts = {"commit": begun["commit"], "generation": begun["generation"], "installs": begun["installs"]}
        return self.run("finished", build=begun["build"], facts=facts, **given)

    def make(self) -> dict[str, Any]:
        begun = self.run("begun")
        self.build(begun)
        return self.finish(begun)

    def listing(self) -> dict[str, tuple[int, int]]:
        """Size and time of all in work/."""
        return {
            str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in (self.prefix / "work").rglob("*")
        }


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "mine")


def test_a_workspace_is_made_of_the_commit_in_use(lab: Lab) -> None:
    begun = lab.run("begun")
    assert begun["changed"]
    assert begun["commit"] == COMMIT
    assert begun["expect"] == {"tests": 12}
    assert begun["installs"]["cocoapi"] == f"{lab.prefix}/opt/cocoapi/1-{'0' * 12}"
    lab.build(begun)
    made = lab.finish(begun)
    assert made["lines"][1] == f"Activate it in place of the installed one: . {lab.prefix}/work/alice/activate.sh"
    assert sorted(os.listdir(lab.prefix / "work")) == ["alice"]
    assert sorted(os.listdir(lab.prefix / "work/alice")) == [
        "activate.csh",
        "activate.sh",
        "base.json",
        "configs",
        "detectron",
        "workspace.json",
    ]
    facts = read_json(str(lab.prefix / "work/alice/workspace.json"))
    assert (facts["name"], facts["commit"], facts["generation"]) == ("alice", COMMIT, f"{lab.prefix}/generations/1")


def test_another_commit_has_no_numbers_to_compare(lab: Lab) -> None:
    begun = lab.run("begun", commit=OTHER)
    assert (begun["commit"], begun["expect"]) == (OTHER, {})


def test_its_files_can_be_written_by_their_owner_and_by_nobody_else(lab: Lab) -> None:
    lab.make()
    tree = lab.prefix / "work/alice/detectron"
    modes = {path.stat().st_mode & 0o777 for path in [tree, *tree.rglob("*")]}
    assert all(mode & 0o200 and not mode & 0o002 for mode in modes)


@pytest.mark.parametrize("shell", ["sh -eu", "bash -eu"])
def test_activation_puts_it_in_place_of_the_installed_one(lab: Lab, shell: str) -> None:
    lab.make()
    for first in ("", f". {lab.prefix}/current/activate.sh; "):
        program = f'{first}. {lab.prefix}/work/alice/activate.sh; echo "$DETECTRON $PYTHONPATH $DETECTRON_GENERATION"'
        said = subprocess.run([*shell.split(), "-c", program], capture_output=True, text=True, check=True).stdout
        tree = f"{lab.prefix}/work/alice/detectron"
        cocoapi = f"{lab.prefix}/opt/cocoapi/1-{'0' * 12}/PythonAPI"
        assert said.split() == [tree, f"{cocoapi}:{tree}", f"{lab.prefix}/generations/1"]


def test_a_second_run_changes_nothing_and_tells_what_was_changed(lab: Lab) -> None:
    lab.make()
    again = lab.run("begun")
    assert (again["changed"], again["build"]) == (False, "")
    assert again["lines"][1:] == ["Nothing in it was changed."]
    tree = lab.prefix / "work/alice/detectron"
    (tree / "detectron/core/config.py").write_text("# another content of it\n")
    (tree / "detectron/core/test.py").unlink()
    (tree / "detectron/core/mine.py").touch()
    (tree / "README.md").unlink()
    (tree / "README.md").symlink_to("elsewhere")
    os.utime(tree / "setup.py", (1, 1))  # touched, and not changed
    (tree / "data").symlink_to("/data/coco")
    for made in ("detectron/core/config.pyc", "build/lib/x.py", "Detectron.egg-info/PKG-INFO"):
        (tree / made).parent.mkdir(parents=True, exist_ok=True)
        (tree / made).touch()
    before = lab.listing()
    again = lab.run("begun")
    assert (again["changed"], again["build"]) == (False, "")
    assert again["lines"][1:] == [
        "It differs from that commit in 5 files.",
        "added: data",
        "added: detectron/core/mine.py",
        "modified: README.md",
        "modified: detectron/core/config.py",
        "removed: detectron/core/test.py",
    ]
    assert lab.listing() == before


def test_many_changes_are_counted(lab: Lab) -> None:
    lab.make()
    for number in range(50):
        (lab.prefix / f"work/alice/detectron/{number:02}.py").touch()
    assert lab.run("begun")["lines"][-2:] == ["added: 39.py", "and 10 more"]


def test_what_goes_on_with_an_older_generation_says_so(lab: Lab) -> None:
    lab.make()
    lab.generation(2, OTHER)
    assert lab.run("begun")["lines"][-2:] == [
        f"It goes on with {lab.prefix}/generations/1; {lab.prefix}/generations/2 is current.",
        f"The installed Detectron is of commit {OTHER}.",
    ]
    remove_tree(str(lab.prefix / "generations/1"))
    assert "is gone: it cannot be activated" in lab.run("begun")["lines"][-2]


def test_another_commit_does_not_overwrite_it(lab: Lab) -> None:
    lab.make()
    before = lab.listing()
    assert f"is of commit {COMMIT}, not of {OTHER}" in lab.run("begun", commit=OTHER)["msg"]
    assert lab.run("begun", commit=COMMIT)["build"] == ""
    assert lab.listing() == before


def test_check_mode_says_what_would_be_made_and_makes_nothing(lab: Lab) -> None:
    said = lab.run("begun", check=True)
    assert (said["changed"], said["build"]) == (True, "")
    assert said["lines"] == [f"{lab.prefix}/work/alice would be made, of commit {COMMIT}."]
    assert not (lab.prefix / "work").exists()


def test_configs_that_were_there_before_stay(lab: Lab) -> None:
    mine = lab.prefix / "work/alice/configs/mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    lab.make()
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("place", ["work/alice/detectron/mine.py", "work/alice"])
def test_what_somebody_put_there_by_hand_is_refused(lab: Lab, place: str) -> None:
    (lab.prefix / place).parent.mkdir(parents=True)
    (lab.prefix / place).write_text("mine")
    before = lab.listing()
    assert "no workspace that this playbook made. Nothing was changed" in lab.run("begun")["msg"]
    assert lab.listing() == before


def test_a_run_that_was_killed_leaves_no_workspace_and_the_next_one_makes_it(lab: Lab) -> None:
    """At each place: while it was built, and when all but the last rename was done."""
    killed = lab.run("begun")
    lab.build(killed)
    again = lab.run("begun")
    assert again["build"] not in ("", killed["build"])
    lab.build(again)
    lab.finish(again)
    os.rename(lab.prefix / "work/alice/detectron", lab.prefix / "work/gone")  # as if that rename had not been done
    remove_tree(str(lab.prefix / "work/gone"))
    assert lab.make()["changed"]
    assert lab.run("begun")["lines"][1:] == ["Nothing in it was changed."]
    os.utime(killed["build"], (1, 1))
    lab.run("begun", name="bob")
    assert not Path(killed["build"]).exists()


def test_of_two_runs_at_once_one_makes_it_and_the_other_says_so(lab: Lab) -> None:
    first, second = lab.run("begun"), lab.run("begun")
    lab.build(first)
    lab.build(second)
    lab.finish(first)
    (lab.prefix / "work/alice/detectron/mine.py").touch()
    assert "Another run has made it meanwhile" in lab.finish(second)["msg"]
    assert (lab.prefix / "work/alice/detectron/mine.py").exists()


def test_a_build_that_failed_is_removed(lab: Lab) -> None:
    begun = lab.run("begun")
    lab.build(begun)
    assert "is not made: the task above failed" in lab.run("failed", build=begun["build"])["msg"]
    assert os.listdir(lab.prefix / "work") == []


@pytest.mark.parametrize("build", ["", "/etc", "{prefix}/work/alice", "{prefix}/work/.building-bob-x", "{prefix}/opt"])
@pytest.mark.parametrize("state", ["finished", "failed"])
def test_nothing_but_a_folder_that_was_begun_is_finished_or_removed(lab: Lab, state: str, build: str) -> None:
    lab.make()
    before = lab.listing()
    path = build.format(prefix=lab.prefix)
    assert "is no folder in which" in lab.run(state, build=path, facts={"installs": {}, "generation": ""})["msg"]
    assert lab.listing() == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "a b", "a\n", "ä", "x" * 101])
def test_a_name_is_one_folder(lab: Lab, name: str) -> None:
    assert "as in -e workspace_name=alice" in lab.run("begun", name=name)["msg"]
    assert not (lab.prefix / "work").exists()


def test_without_a_generation_there_is_nothing_to_build_with(lab: Lab) -> None:
    os.unlink(lab.prefix / "current")
    assert "Run `ansible-playbook site.yml` first" in lab.run("begun")["msg"]
