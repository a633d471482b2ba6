"""Generations: listing, going back, pruning, removing; and what damage each look at an install sees."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.stack_generations import (
    choose,
    current_number,
    flip,
    generations,
    shown,
    unasked,
    usage,
    uses,
)
from ansible.module_utils.stack_installs import (
    StackError,
    claim,
    install_state,
    publish,
    read_json,
    remove_tree,
    write_json,
)
from run_module import run_module

LONG_AGO = (0, 0)


class Stack:
    """A prefix with fake installs and generations, made by the functions that make real ones."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        claim(str(prefix), "mine")

    def install(self, role: str, version: str, files: int = 3, publishes: bool = True) -> str:
        """Path of a new install, relative to the prefix. Old enough that no run can be about to use it."""
        path = f"opt/{role}/{version}-{'0' * 12}"
        folder = self.prefix / path / "lib"
        folder.mkdir(parents=True)
        for number in range(files):
            (folder / f"{number}.py").write_text(f"value = {number}\n" * 100)
        if publishes:
            publish(str(self.prefix / path), {"role": role})
            os.utime(self.prefix / path / "receipt.json", LONG_AGO)
        return path

    def generation(self, number: int, *installs: str) -> None:
        """A generation of some installs, made current."""
        folder = self.prefix / "generations" / str(number)
        folder.mkdir()
        for path in installs:
            (folder / path.split("/")[1]).symlink_to(self.prefix / path)
        publish(str(folder), {"number": number, "digest": f"d{number}"})
        flip(str(self.prefix), str(folder))

    def usage(self, server: str = "") -> dict[str, Any]:
        """What generation_info says of who uses it."""
        found: dict[str, Any] = usage(str(self.prefix))
        return {**found, "server": server or found["server"]}

    def listing(self) -> set[str]:
        folders = ("opt/*/*", "generations/*", "var/*/*", "var/cache/sha256/*", "runs")
        return {str(path.relative_to(self.prefix)) for folder in folders for path in self.prefix.glob(folder)}

    def prune(self, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"prefix": str(self.prefix), "usages": [self.usage()], **arguments}
        return run_module("stack_prune", check, **given)

    def remove(self, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"prefix": str(self.prefix), "stack": "mine", "usages": [self.usage()], **arguments}
        return run_module("stack_remove", check, **given)

    def rollback(self, current: int, check: bool = False, **arguments: Any) -> dict[str, Any]:
        return run_module("generation_rollback", check, prefix=str(self.prefix), current=current, **arguments)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    yield Stack(tmp_path / "new" / "prefix")
    remove_tree(str(tmp_path / "new"))  # pytest cannot remove what is read-only


@pytest.fixture
def upgraded(stack: Stack) -> Stack:
    """Three generations of caffe2 1, 2 and 3 with one and the same cocoapi; the third is current."""
    cocoapi = stack.install("cocoapi", "1")
    for number in (1, 2, 3):
        stack.generation(number, cocoapi, stack.install("caffe2", str(number)))
    return stack


def installed(stack: Stack, role: str) -> list[str]:
    """Versions of a role that are installed."""
    return sorted(path.name.partition("-")[0] for path in stack.prefix.glob(f"opt/{role}/*"))


def numbers(stack: Stack) -> list[str]:
    return sorted(os.listdir(stack.prefix / "generations"))


@pytest.fixture
def working(upgraded: Stack, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was started with generation 1 activated."""
    environment = {"DETECTRON_GENERATION": f"{upgraded.prefix}/generations/1", "PATH": os.environ["PATH"]}
    process = subprocess.Popen(["sleep", "600"], env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while process.pid not in {use["pid"] for use in uses(str(upgraded.prefix))}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


# --- Listing ----------------------------------------------------------------------------------------------------------


def test_generations_are_listed_newest_first_with_what_they_hold(upgraded: Stack) -> None:
    result = run_module("generation_info", prefix=str(upgraded.prefix))
    assert [found["number"] for found in result["generations"]] == [3, 2, 1]
    assert result["current"] == 3 and not result["changed"]
    assert result["lines"][0].startswith("generation 3 (current), made 20")
    assert result["lines"][0].endswith(f": caffe2/3-{'0' * 12}, cocoapi/1-{'0' * 12}")


def test_a_prefix_that_is_not_there_has_no_generations(tmp_path: Path) -> None:
    result = run_module("generation_info", prefix=str(tmp_path / "none"))
    assert (result["generations"], result["current"], result["usage"]["identity"]) == ([], 0, "")


def test_a_broken_install_shows_in_each_generation_that_holds_it(upgraded: Stack) -> None:
    remove_tree(str(upgraded.prefix / f"opt/caffe2/2-{'0' * 12}"))
    problems = {found["number"]: found["problem"] for found in generations(str(upgraded.prefix))}
    assert not problems[3] and not problems[1]
    assert problems[2] == f"opt/caffe2/2-{'0' * 12} is absent (not installed)"


def test_a_generation_without_a_receipt_is_shown_all_the_same(upgraded: Stack) -> None:
    remove_tree(str(upgraded.prefix / "generations/1"))
    (upgraded.prefix / "generations/1").mkdir()
    assert "generation 1 NOT WHOLE" in shown(generations(str(upgraded.prefix))[2])


@pytest.mark.parametrize("target", ["nowhere", "generations/none"])
def test_current_may_point_to_nothing(stack: Stack, target: str) -> None:
    (stack.prefix / "current").symlink_to(target)
    assert current_number(str(stack.prefix)) == 0


# --- Who uses it ------------------------------------------------------------------------------------------------------


def test_a_process_is_known_by_its_environment(upgraded: Stack, working: subprocess.Popen[bytes]) -> None:
    [use] = uses(str(upgraded.prefix))
    assert use == {"pid": working.pid, "command": "sleep 600", "paths": ["generations/1"]}


def test_a_process_is_known_by_a_library_that_it_has_mapped(upgraded: Stack) -> None:
    path = upgraded.prefix / f"opt/caffe2/2-{'0' * 12}/lib/0.py"
    program = "import mmap, os; f = os.open(input(), 0); m = mmap.mmap(f, 0, prot=1); os.close(f); print(); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin and process.stdout
        print(path, file=process.stdin, flush=True)
        process.stdout.readline()
        [use] = uses(str(upgraded.prefix))
        assert use["paths"] == [f"opt/caffe2/2-{'0' * 12}"]
    finally:
        process.kill()
        process.communicate()


def test_a_prefix_may_be_named_through_a_link(
    upgraded: Stack, working: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(upgraded.prefix)
    assert [use["pid"] for use in uses(str(tmp_path / "link"))] == [working.pid]


# --- Going back -------------------------------------------------------------------------------------------------------


def test_going_back_takes_the_generation_before(upgraded: Stack) -> None:
    result = upgraded.rollback(3, check=True)
    assert result["changed"] and result["number"] == 2 and current_number(str(upgraded.prefix)) == 3
    assert upgraded.rollback(3)["changed"]
    assert current_number(str(upgraded.prefix)) == 2
    assert not upgraded.rollback(3)["changed"]  # the second server of a shared prefix


def test_going_to_a_number_twice_changes_nothing(upgraded: Stack) -> None:
    assert upgraded.rollback(3, to=1)["changed"]
    assert not upgraded.rollback(1, to=1)["changed"]
    assert os.readlink(upgraded.prefix / "current") == "generations/1"


def test_going_back_leaves_out_what_was_pruned_between(upgraded: Stack) -> None:
    remove_tree(str(upgraded.prefix / "generations/2"))
    assert upgraded.rollback(3)["number"] == 1


@pytest.mark.parametrize(
    ("current", "wanted", "says"),
    [
        (1, 0, r"There is no generation before 1 \(there are: 3, 2, 1\)"),
        (3, 9, r"There is no generation 9 \(there are: 3, 2, 1\)\. Name one of them with -e rollback_to=N"),
        (0, 0, "No generation is current here"),
        (3, 2, r"Generation 2 cannot be used: opt/caffe2/2-0+ is damaged \(lib/0.py has another size\)"),
        (3, 0, "Generation 2 cannot be used"),
    ],
)
def test_what_cannot_be_gone_back_to_is_refused(upgraded: Stack, current: int, wanted: int, says: str) -> None:
    broken = upgraded.prefix / f"opt/caffe2/2-{'0' * 12}/lib/0.py"
    broken.chmod(0o644)
    os.truncate(broken, 1)
    broken.chmod(0o444)
    with pytest.raises(StackError, match=says):
        choose(generations(str(upgraded.prefix)), current, wanted)


def test_a_refusal_leaves_current_alone(upgraded: Stack) -> None:
    assert "There is no generation 9" in upgraded.rollback(3, to=9)["msg"]
    assert current_number(str(upgraded.prefix)) == 3


# --- Pruning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "left"), [(0, ["3"]), (1, ["2", "3"]), (2, ["1", "2", "3"]), (9, ["1", "2", "3"])])
def test_the_newest_generations_and_their_installs_are_kept(upgraded: Stack, keep: int, left: list[str]) -> None:
    before = upgraded.listing()
    planned = upgraded.prune(check=True, keep=keep)
    assert upgraded.listing() == before
    result = upgraded.prune(keep=keep)
    assert numbers(upgraded) == installed(upgraded, "caffe2") == left
    assert installed(upgraded, "cocoapi") == ["1"]
    assert (planned["changed"], planned["bytes"]) == (result["changed"], result["bytes"])
    assert result["changed"] == (len(left) < 3)
    assert not upgraded.prune(keep=keep)["changed"]


def test_the_current_generation_is_kept_however_old_it_is(upgraded: Stack) -> None:
    upgraded.rollback(3, to=1)
    upgraded.prune(keep=0)
    assert numbers(upgraded) == installed(upgraded, "caffe2") == ["1"]


def test_what_a_process_uses_is_kept_until_it_ends(upgraded: Stack, working: subprocess.Popen[bytes]) -> None:
    result = upgraded.prune(keep=0)
    assert numbers(upgraded) == installed(upgraded, "caffe2") == ["1", "3"]
    assert f"kept generations/1: process {working.pid} on {upgraded.usage()['server']} (sleep 600)" in result["lines"]
    working.kill()
    working.wait()
    upgraded.prune(keep=0)
    assert numbers(upgraded) == ["3"]


def test_what_a_workspace_goes_on_with_is_kept(upgraded: Stack) -> None:
    """By itself, generation 1 of three would go."""
    facts = {"generation": str(upgraded.prefix / "generations/1")}
    (upgraded.prefix / "work/alice").mkdir(parents=True)
    write_json(str(upgraded.prefix / "work/alice/workspace.json"), facts)
    (upgraded.prefix / "work/bob").mkdir()
    lines = upgraded.prune(keep=0)["lines"]
    assert "kept generations/1: workspace alice goes on with it" in lines
    assert "1" in numbers(upgraded)
    remove_tree(str(upgraded.prefix / "work/alice"))
    upgraded.prune(keep=0)
    assert "1" not in numbers(upgraded)


def test_a_generation_that_is_not_whole_is_not_one_of_those_to_keep(upgraded: Stack) -> None:
    remove_tree(str(upgraded.prefix / f"opt/caffe2/2-{'0' * 12}"))
    upgraded.prune(keep=1)
    assert numbers(upgraded) == ["1", "3"]


def test_what_a_run_under_way_has_made_is_kept(upgraded: Stack) -> None:
    fresh = upgraded.install("caffe2", "4")
    os.utime(upgraded.prefix / fresh / "receipt.json")
    building = upgraded.install("detectron", "1", publishes=False)
    write_json(str(upgraded.prefix / f"var/lease/detectron-{'0' * 12}.json"), {"server": "gpu1"})
    download = upgraded.prefix / "var/cache/sha256/aa/wheel"
    download.parent.mkdir(parents=True)
    download.touch()
    lines = upgraded.prune()["lines"]
    assert installed(upgraded, "caffe2") == ["2", "3", "4"] and download.exists()
    assert f"kept {building}: being built by gpu1" in lines


def test_leftovers_and_downloads_are_removed(upgraded: Stack) -> None:
    prefix = upgraded.prefix
    kept = upgraded.listing()
    upgraded.install("caffe2", "7")  # in no generation
    upgraded.install("caffe2", "8", publishes=False)  # killed long ago
    for name in ("sha256/aa", "md5/bb"):
        (prefix / "var/cache" / name).mkdir(parents=True)
        os.utime(prefix / "var/cache" / name, LONG_AGO)
    (prefix / "var/tmp/garbage-1").mkdir()
    (prefix / "var/lease/x.json").touch()
    os.utime(prefix / "var/lease/x.json", LONG_AGO)
    (prefix / "var/cache/cuda").mkdir()  # compiled by the driver, for many minutes
    upgraded.prune(keep=2, downloads=False)
    assert (prefix / "var/cache/sha256/aa").exists()
    result = upgraded.prune(keep=2)
    assert sorted(gone["path"] for gone in result["removed"]) == ["var/cache/md5/bb", "var/cache/sha256/aa"]
    assert upgraded.listing() == kept | {"var/cache/sha256", "var/cache/md5", "var/cache/cuda"}


def test_the_python_that_a_server_runs_on_is_kept(upgraded: Stack) -> None:
    """Those of role bootstrap: an old one goes, unless another server of the run still runs on it."""
    for number in range(1, 4):
        folder = upgraded.prefix / f"var/python3/3.9.{number}-0"
        folder.mkdir(parents=True)
        (folder / "receipt.json").write_text("{}")
        os.utime(folder / "receipt.json", (0, 0))
    (upgraded.prefix / "var/python3/3.9.3-0/receipt.json").touch()
    mine = {**upgraded.usage(), "python": "var/python3/3.9.1-0"}
    result = upgraded.prune(usages=[mine])
    assert "kept var/python3/3.9.1-0: the modules of this run run on it" in result["lines"]
    assert sorted(os.listdir(upgraded.prefix / "var/python3")) == ["3.9.1-0", "3.9.3-0"]


def test_bytes_are_counted_when_the_last_name_of_a_file_goes(stack: Stack) -> None:
    """conda links the same file into several environments."""
    kept = stack.install("anaconda2", "1", publishes=False)
    old = stack.install("caffe2", "1", publishes=False)
    os.link(stack.prefix / kept / "lib/0.py", stack.prefix / old / "lib/shared.py")
    os.link(stack.prefix / old / "lib/1.py", stack.prefix / old / "lib/twice.py")
    publish(str(stack.prefix / kept), {})
    stack.generation(1, kept)
    own = [stack.prefix / old / "lib" / name for name in ("0.py", "1.py", "2.py")]
    expected = sum(512 * path.stat().st_blocks for path in own)
    assert stack.prune()["bytes"] == expected > 0


def test_servers_that_share_a_prefix_are_all_asked_and_one_removes(upgraded: Stack) -> None:
    (upgraded.prefix / "checks/gpu2").mkdir()
    result = upgraded.prune(keep=0)
    assert "gpu2 has used" in result["msg"] and "without --limit" in result["msg"] and numbers(upgraded) != ["3"]
    other = {**upgraded.usage("gpu2"), "uses": [{"pid": 7, "command": "train", "paths": ["generations/1"]}]}
    elsewhere = {**other, "identity": "another", "server": "gpu3"}
    assert unasked(str(upgraded.prefix), [elsewhere]) == ["gpu2"]
    assert not upgraded.prune(keep=0, usages=[other, upgraded.usage()])["changed"]  # gpu2 does it
    assert upgraded.prune(keep=0, usages=[elsewhere, upgraded.usage(), other])["changed"]
    assert numbers(upgraded) == ["1", "3"]


def test_a_negative_number_to_keep_is_refused(upgraded: Stack) -> None:
    assert "prune_keep is -1" in upgraded.prune(keep=-1)["msg"]


# --- Removing ---------------------------------------------------------------------------------------------------------


def test_removing_takes_everything_and_the_folders_that_were_made(upgraded: Stack, tmp_path: Path) -> None:
    assert upgraded.remove(check=True)["changed"] and upgraded.prefix.exists()
    assert upgraded.remove()["changed"]
    assert list(tmp_path.iterdir()) == []
    assert not upgraded.remove()["changed"]


def test_a_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "disk/alice").mkdir(parents=True)
    Stack(tmp_path / "disk/alice").remove()
    assert list((tmp_path / "disk/alice").iterdir()) == []
    stack = Stack(tmp_path / "disk/stacks/mine")
    (tmp_path / "disk/stacks/other").touch()
    stack.remove()
    assert [path.name for path in (tmp_path / "disk/stacks").iterdir()] == ["other"]


def test_a_marker_cannot_name_folders_elsewhere(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "prefix")
    (tmp_path / "empty").mkdir()
    marker = str(stack.prefix / ".stack.json")
    write_json(marker, {**read_json(marker), "made": [str(tmp_path / "empty"), str(stack.prefix)]})
    stack.remove()
    assert os.listdir(tmp_path) == ["empty"]


def test_what_is_in_use_is_removed_only_when_told_so(upgraded: Stack, working: subprocess.Popen[bytes]) -> None:
    message = upgraded.remove()["msg"]
    assert f"process {working.pid} on" in message and "(sleep 600) uses generations/1" in message
    assert "remove_running=true" in message and upgraded.prefix.exists()
    assert upgraded.remove(running=True)["changed"] and not upgraded.prefix.exists()


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda prefix: (prefix / "checks/gpu2").mkdir(), "gpu2 has used it too and could not be asked"),
        (lambda prefix: write_json(f"{prefix}/var/lease/a-b.json", {"server": "gpu1"}), "gpu1 builds in it"),
        (lambda prefix: (prefix / "runs/first").mkdir(parents=True), "results: runs/first. Nothing was removed"),
        (lambda prefix: (prefix / "runs/.log").mkdir(parents=True), "results: runs/.log. Nothing was removed"),
        (lambda prefix: (prefix / "work/alice").mkdir(parents=True), "results: work/alice. Nothing was removed"),
        (lambda prefix: (prefix / "notes.txt").touch(), "remove_results=true"),
    ],
)
def test_what_somebody_may_need_is_not_removed(stack: Stack, prepare: Callable[[Path], None], says: str) -> None:
    prepare(stack.prefix)
    assert says in stack.remove()["msg"]
    assert stack.prefix.exists()
    stack.remove(running=True, results=True)
    assert not stack.prefix.exists()


def test_what_people_made_is_named_also_when_it_is_removed(stack: Stack) -> None:
    for name in ("work/alice/detectron", "work/bob", "runs/first"):
        (stack.prefix / name).mkdir(parents=True)
    (line,) = stack.remove(check=True, results=True)["lines"]
    assert "would be removed" in line and line.endswith("generations, opt, var, runs/first, work/alice, work/bob")
    assert (stack.prefix / "work/bob").exists()


def test_another_stacks_prefix_is_not_removed(stack: Stack) -> None:
    assert "belongs to stack mine, not other" in stack.remove(stack="other")["msg"]


def test_a_folder_that_is_not_ours_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    result = run_module("stack_remove", prefix=str(tmp_path), stack="mine", running=True, results=True, usages=[])
    assert "was not made by this project" in result["msg"] and (tmp_path / "thesis.tex").exists()


# --- Damage -----------------------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    """Change one bit and put the times back, so that no stat shows it."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGE: dict[str, tuple[Callable[[Path], object], bool]] = {
    "deleted": (lambda path: path.unlink(), True),
    "truncated": (lambda path: os.truncate(path, random.randrange(path.stat().st_size)), True),
    "chmod": (lambda path: path.chmod(0o664), True),
    "flipped": (flip_a_bit, False),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_of_fifty_damaged_files_is_seen(stack: Stack, kind: str) -> None:
    """By stat where it can see it, by content always; and only in the install that has it."""
    change, by_stat = DAMAGE[kind]
    whole = str(stack.prefix / stack.install("cocoapi", "1", files=50))
    random.seed(kind)
    for number in range(50):
        damaged = stack.prefix / stack.install("caffe2", str(number), files=20)
        (damaged / "lib").chmod(0o755)
        path = damaged / "lib" / f"{random.randrange(20)}.py"
        path.chmod(0o644)
        change(path)
        if path.exists() and kind != "chmod":
            path.chmod(0o444)
        (damaged / "lib").chmod(0o555)
        assert (install_state(str(damaged))["state"] == "damaged") == by_stat, path
        state = install_state(str(damaged), deep=True)
        assert state["state"] == "damaged" and path.name in state["why"]
    assert install_state(whole, deep=True)["state"] == "present"
