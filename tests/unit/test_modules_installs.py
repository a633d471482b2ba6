"""The modules that look up, begin and publish installs and generations, as processes of their own."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.stack_installs import (
    MARKER,
    RECEIPT,
    install_state,
    remove_tree,
    temporary_folder,
)
from ansible.module_utils.stack_lease import STALE, WATCH, is_told_dead
from ansible.module_utils.stack_wanted import wanted_installs
from run_module import Running, run_module

RUN = {"run": "this run", "controller": "laptop", "host": "gpu1"}
NEIGHBOUR = {**RUN, "host": "gpu2"}  # a server of the same run that shares the home
OTHER = {"run": "another run", "controller": "desktop", "host": "gpu1"}

Installs = dict[str, dict[str, Any]]


@pytest.fixture
def prefix(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "prefix"
    remove_tree(str(tmp_path / "prefix"))  # pytest cannot remove what is read-only


def specs() -> Installs:
    """Two installs, the second built against the first."""
    common = {"version": "1.0", "recipe": 1, "inputs": {}}
    return {"base": {**common, "requires": []}, "top": {**common, "requires": ["base"]}}


WANTED: Installs = wanted_installs(specs())
LEASE = f"var/lease/base-{WANTED['base']['digest']}.json"


def look_up(prefix: Path | str, **arguments: Any) -> dict[str, Any]:
    return run_module("stack_lookup", prefix=str(prefix), stack="mine", specs=specs(), **arguments)


def found(prefix: Path, disk_bytes: int = 1) -> Installs:
    """What the look-up finds before anything is there."""
    extra = {"state": "absent", "why": "not installed", "disk_bytes": disk_bytes}
    return {role: {**install, "path": str(prefix / install["path"]), **extra} for role, install in WANTED.items()}


def begin(prefix: Path, role: str = "base", check: bool = False, **arguments: Any) -> dict[str, Any]:
    given = {"prefix": str(prefix), "stack": "mine", "role": role, "installs": found(prefix), "run": RUN, **arguments}
    return run_module("install_begin", check, **given)


def publish(prefix: Path, **arguments: Any) -> dict[str, Any]:
    given = {"prefix": str(prefix), "role": "base", "installs": found(prefix), "cache": str(prefix / "var/cache")}
    return run_module("install_publish", **{**given, "run": RUN, **arguments})


def begun(prefix: Path) -> Path:
    """A build that is ready to be published."""
    path = Path(begin(prefix)["path"])
    (path / "file").write_text("content\n")
    return path


def build(prefix: Path) -> Path:
    """A published install."""
    path = begun(prefix)
    assert "failed" not in publish(prefix)
    return path


def lease(prefix: Path) -> Path:
    return prefix / LEASE


def temporary(prefix: Path) -> list[str]:
    """What lies among this server's temporary files."""
    return os.listdir(temporary_folder(str(prefix)))


# --- Look-up ----------------------------------------------------------------------------------------------------------


def test_a_look_up_of_nothing_makes_nothing(prefix: Path) -> None:
    result = look_up(prefix)
    assert not result["changed"]
    assert {install["state"] for install in result["installs"].values()} == {"absent"}
    assert result["generation"] == result["ladder"] == {}
    assert result["server"] == socket.gethostname()
    assert not prefix.exists()


def test_a_look_up_tells_what_is_there_with_absolute_paths(prefix: Path) -> None:
    path = build(prefix)
    result = look_up(prefix)
    assert result["installs"]["base"]["state"] == "present"
    assert result["installs"]["base"]["path"] == str(path)
    assert result["installs"]["top"]["state"] == "absent"


def test_only_a_deep_look_up_reads_contents(prefix: Path) -> None:
    file = build(prefix) / "file"
    before = file.stat()
    file.chmod(0o644)
    file.write_text("CONTENT\n")
    file.chmod(stat.S_IMODE(before.st_mode))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look_up(prefix)["installs"]["base"]["state"] == "present"
    assert look_up(prefix, deep=True)["installs"]["base"]["why"] == "file has other content"


@pytest.mark.parametrize("given", ["{prefix}/", "{prefix}/../prefix", "{prefix}/./", "~/prefix", "$HOME/prefix"])
def test_a_prefix_is_told_in_one_form(prefix: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(prefix.parent))
    assert look_up(given.format(prefix=prefix))["prefix"] == str(prefix)


def test_a_prefix_may_be_a_link(prefix: Path, tmp_path: Path) -> None:
    build(prefix)
    (tmp_path / "link").symlink_to(prefix)
    assert look_up(tmp_path / "link")["installs"]["base"]["state"] == "present"


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda prefix: (prefix / "thesis.tex").touch(), "is not empty and was not made by this project"),
        (lambda prefix: (prefix / MARKER).write_text('{"stack": "theirs"}'), "belongs to stack theirs, not mine"),
    ],
)
def test_a_prefix_of_somebody_else_is_refused(prefix: Path, prepare: Callable[[Path], object], says: str) -> None:
    prefix.mkdir()
    prepare(prefix)
    assert says in look_up(prefix)["msg"]
    assert says in begin(prefix)["msg"]


def test_what_is_not_pinned_is_refused() -> None:
    branch = {"base": {**specs()["base"], "inputs": {"commit": "master"}}}
    result = run_module("stack_lookup", prefix="/none", stack="mine", specs=branch)
    assert result["msg"].startswith("The commit of base is 'master': give a full commit id")


def test_a_relative_prefix_is_refused() -> None:
    assert "give a full path" in look_up("detectron")["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become a login that may not read")
def test_what_cannot_be_read_is_one_sentence(prefix: Path) -> None:
    build(prefix)
    prefix.chmod(0o700)
    looking = Running("stack_lookup", user=12345, prefix=str(prefix), stack="mine", specs=specs())
    assert "cannot be read: Permission denied. Is it really yours?" in looking.result()["msg"]


# --- Begin ------------------------------------------------------------------------------------------------------------


def test_beginning_makes_an_empty_folder_under_a_lease(prefix: Path) -> None:
    result = begin(prefix)
    assert result["changed"] and result["build"]
    assert os.listdir(result["path"]) == []
    holder = json.loads(lease(prefix).read_text())
    assert holder.items() >= {**RUN, "server": socket.gethostname()}.items()
    assert result["diff"]["before"] == "base: absent (not installed)\n"


def test_nothing_is_begun_when_it_is_there(prefix: Path) -> None:
    path = build(prefix)
    result = begin(prefix)
    assert (result["changed"], result["build"], result["path"]) == (False, False, str(path))


def test_check_mode_says_what_would_be_built_and_makes_nothing(prefix: Path) -> None:
    result = begin(prefix, check=True)
    assert result["changed"] and not result["build"]
    assert not prefix.exists()


def test_what_a_killed_run_left_is_removed(prefix: Path) -> None:
    path = Path(begin(prefix)["path"])
    (path / "half").touch()
    for folder in (prefix / "var/tmp", Path(temporary_folder(str(prefix)))):
        (folder / "garbage-old").mkdir()
    (Path(temporary_folder(str(prefix))) / "conda-half").mkdir()
    assert begin(prefix)["build"]
    assert os.listdir(path) == temporary(prefix) == []


def test_a_damaged_install_is_replaced(prefix: Path) -> None:
    path = build(prefix)
    os.truncate(path / "file", 0)
    result = begin(prefix)
    assert result["build"]
    assert "damaged (file has another size)" in result["diff"]["before"]
    assert os.listdir(path) == []


def test_a_command_that_a_killed_run_left_running_is_waited_for(prefix: Path) -> None:
    path = Path(begin(prefix)["path"])
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)", f"--prefix={path}"])
    started = time.monotonic()
    assert begin(prefix)["build"]
    assert left.poll() == 0
    assert time.monotonic() - started > 1


def test_too_little_disk_is_said_before_anything_is_made(prefix: Path) -> None:
    for check in (False, True):
        message = begin(prefix, check=check, installs=found(prefix, disk_bytes=10**18))["msg"]
        assert "base needs 1000000000.0 GB" in message
        assert "Free some space, or set stack_prefix" in message
    assert not prefix.exists()


def test_a_missing_requirement_names_the_tag(prefix: Path) -> None:
    message = begin(prefix, "top")["msg"]
    assert "top is built against base, which is absent here (not installed)" in message
    assert "ansible-playbook site.yml --tags base" in message
    assert not prefix.exists()


@pytest.mark.parametrize(("tags", "fine"), [(["all"], True), (["base", "top"], True), (["top"], False)])
def test_in_check_mode_a_selected_role_counts_as_planned(prefix: Path, tags: list[str], fine: bool) -> None:
    assert ("failed" not in begin(prefix, "top", check=True, run_tags=tags)) == fine


def test_a_prefix_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = begin(tmp_path / "file" / "prefix", installs=found(tmp_path / "file" / "prefix"))["msg"]
    assert message.startswith("base cannot be built below ")
    assert message.endswith("Check its space and permissions.")


# --- Several at once --------------------------------------------------------------------------------------------------


def held(prefix: Path, **changes: Any) -> dict[str, Any]:
    """A lease's data, with changes as if by another server."""
    holder: dict[str, Any] = json.loads(lease(prefix).read_text())
    holder |= changes
    if changes:
        lease(prefix).write_text(json.dumps(holder))
    return holder


def silence(prefix: Path, seconds: float) -> None:
    """Set a heartbeat back."""
    then = time.time() - seconds
    os.utime(lease(prefix), (then, then))


ELSEWHERE = {"server": "gpu7", "server_machine": "another"}


def test_who_else_builds_it_is_told(prefix: Path) -> None:
    begin(prefix)
    result = begin(prefix, run=OTHER)
    assert not result["build"]
    assert result["held_by"] == held(prefix)


def test_a_dead_runs_build_on_this_server_is_taken_over(prefix: Path) -> None:
    begin(prefix)
    assert begin(prefix, run=OTHER, dead=held(prefix))["build"]


def test_a_dead_runs_build_on_another_server_is_not_before_its_last_command_has_ended(prefix: Path) -> None:
    begin(prefix)
    holder = held(prefix, **ELSEWHERE)
    assert begin(prefix, run=OTHER, dead=holder)["held_by"] == holder
    assert is_told_dead(str(lease(prefix)), holder)


def test_the_heart_of_a_build_beats_and_ends_with_it(prefix: Path) -> None:
    path = begun(prefix)
    silence(prefix, 3600)
    deadline = time.monotonic() + 60
    while time.time() - lease(prefix).stat().st_mtime > 1800:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "failed" not in publish(prefix)
    assert install_state(str(path))["state"] == "present"


def wait(prefix: Path, run: dict[str, str] = OTHER, **arguments: Any) -> dict[str, Any]:
    return begin(prefix, run=run, **{"wait": held(prefix), "seconds": 0, **arguments})


def test_waiting_ends_when_the_other_has_published(prefix: Path) -> None:
    begun(prefix)
    given: dict[str, Any] = {"prefix": str(prefix), "stack": "mine", "role": "base", "installs": found(prefix)}
    waiting = Running("install_begin", **given, wait=held(prefix), run=OTHER, seconds=60)
    time.sleep(0.2)
    assert not waiting.ended()
    publish(prefix)
    result = waiting.result()
    assert result["build"] is False
    assert not {"held_by", "lost"} & result.keys()


def test_who_waits_tells_after_a_while_for_whom_and_how_they_are(prefix: Path) -> None:
    begin(prefix)
    holder = held(prefix, **ELSEWHERE)
    silence(prefix, 100)
    result = wait(prefix, quiet=12)
    assert result["held_by"] == holder
    assert 99 < result["age"] < 160
    assert result["quiet"] == 12
    assert os.listdir(prefix / "var/lease") == [lease(prefix).name]


def test_a_build_of_this_run_that_failed_fails_those_that_waited_for_it(prefix: Path) -> None:
    """Their own would fail of the same, one after the other."""
    begin(prefix)
    holder = held(prefix)
    lease(prefix).unlink()
    message = begin(prefix, run=NEIGHBOUR, wait=holder)["msg"]
    assert message.startswith(f"gpu1, {holder['server']} (run from laptop, since ")
    assert "shares this prefix, was building" in message and "and failed" in message
    assert "run the same command again" in message


def test_a_build_of_another_run_that_failed_may_be_begun_anew(prefix: Path) -> None:
    begin(prefix)
    holder = held(prefix)
    lease(prefix).unlink()
    assert begin(prefix, run=OTHER, wait=holder)["lost"] == holder
    assert begin(prefix, run=OTHER)["build"]


def test_a_run_of_this_server_that_died_is_not_waited_for(prefix: Path) -> None:
    begin(prefix)
    holder = held(prefix)
    assert wait(prefix, dead=holder)["lost"] == holder
    assert not lease(prefix).exists()


@pytest.mark.parametrize(
    ("run", "known"),
    [(NEIGHBOUR, False), (OTHER, True)],
    ids=["a server that its run can no longer reach", "a run that died on this controller"],
)
def test_what_another_server_still_does_for_nobody_is_waited_for(
    prefix: Path, run: dict[str, str], known: bool
) -> None:
    begin(prefix)
    holder = held(prefix, **ELSEWHERE)
    arguments = {"run": run, "dead": holder if known else {}}
    assert wait(prefix, **arguments, quiet=1000)["held_by"] == holder
    assert is_told_dead(str(lease(prefix)), holder)
    silence(prefix, WATCH + 10)
    assert wait(prefix, **arguments)["held_by"] == holder
    assert wait(prefix, **arguments, quiet=WATCH)["lost"] == holder
    assert not lease(prefix).exists()
    # Of several that wait, one is the first to find it lost. The others must not take that for a failure.
    assert begin(prefix, run=run, wait=holder)["lost"] == holder


def test_a_holder_of_whom_nothing_is_known_is_lost_when_stale(prefix: Path) -> None:
    begin(prefix)
    holder = held(prefix, **ELSEWHERE)
    silence(prefix, STALE - 60)
    assert wait(prefix, quiet=WATCH)["held_by"] == holder
    silence(prefix, STALE + 60)
    assert wait(prefix, quiet=WATCH)["lost"] == holder


def test_whoever_takes_a_build_over_is_waited_for_in_turn(prefix: Path) -> None:
    begin(prefix)
    before = held(prefix)
    after = held(prefix, **ELSEWHERE)
    silence(prefix, STALE + 60)
    result = begin(prefix, run=OTHER, wait=before, seconds=0, quiet=WATCH)
    assert result["held_by"] == after
    assert result["quiet"] == 0


def test_a_build_that_was_taken_over_is_not_published(prefix: Path) -> None:
    path = Path(begin(prefix)["path"])
    begin(prefix, run=OTHER, dead=held(prefix))
    (path / "mixed").touch()
    assert "another run took it over" in publish(prefix)["msg"]
    assert install_state(str(path))["state"] == "absent"
    assert lease(prefix).exists()


# --- Failed -----------------------------------------------------------------------------------------------------------


def fail(prefix: Path, **arguments: Any) -> dict[str, Any]:
    given = {"prefix": str(prefix), "role": "base", "installs": found(prefix), "run": RUN, **arguments}
    return run_module("install_failed", **given)


def test_a_build_that_failed_gives_its_lease_back_and_stays_to_be_looked_at(prefix: Path) -> None:
    path = begun(prefix)
    result = fail(prefix, reason="gcc: not found")
    assert not result["full"]
    assert os.listdir(prefix / "var/lease") == os.listdir(temporary_folder(str(prefix))) == []
    assert os.listdir(path) == ["file"]


@pytest.mark.parametrize(
    "reason",
    ["write error: No space left on device", "[Errno 28] ...", "cp: Disk quota exceeded", "OSError: [Errno 122]"],
)
def test_a_full_disk_gets_back_what_was_half_built(prefix: Path, reason: str) -> None:
    path = begun(prefix)
    assert fail(prefix, reason=reason)["full"]
    assert not path.exists()


def test_a_build_that_others_have_taken_over_is_theirs(prefix: Path) -> None:
    path = begun(prefix)
    assert fail(prefix, run=OTHER, reason="No space left on device")["full"]
    assert path.exists() and lease(prefix).exists()


# --- Publish ----------------------------------------------------------------------------------------------------------


def test_publishing_writes_the_receipt_and_gives_the_lease_back(prefix: Path) -> None:
    path = begun(prefix)
    result = publish(prefix, origin={"file": "mirror"}, checks={"import": "passed"})
    receipt = json.loads((path / RECEIPT).read_text())
    assert result["receipt"] == receipt
    assert result["msg"] == "base 1.0 published: 1 paths, 0 MB"
    assert receipt["origin"] == {"file": "mirror"} and receipt["checks"] == {"import": "passed"}
    assert receipt["glibc"].startswith("glibc")
    assert not lease(prefix).exists()


def test_publishing_discards_downloads_of_the_cache_only(prefix: Path, tmp_path: Path) -> None:
    begun(prefix)
    inside, outside = prefix / "var/cache/sha256/abc/file", tmp_path / "mirror" / "file"
    for file in (inside, outside):
        file.parent.mkdir(parents=True)
        file.touch()
    publish(prefix, discard=[str(inside), str(outside)])
    assert not inside.parent.exists()
    assert outside.exists()


def test_what_cannot_be_published_is_said(prefix: Path) -> None:
    begin(prefix)
    assert "nothing was built" in publish(prefix)["msg"]
    os.mkfifo(Path(begin(prefix)["path"]) / "pipe")
    assert "neither a file, a folder nor a link" in publish(prefix)["msg"]
    assert lease(prefix).exists()


# --- Generations ------------------------------------------------------------------------------------------------------


def generation(prefix: Path, state: str = "staged", check: bool = False, **arguments: Any) -> dict[str, Any]:
    installs = {"base": {"path": found(prefix)["base"]["path"]}}
    files = {"activate.sh": "cd @GENERATION@\n", "bin/check-ladder": "#!/bin/sh\n", "tools/a.py": "#!/bin/sh\n"}
    links = {"usr/local/lib64": f"{found(prefix)['base']['path']}/lib64"}
    given = {"state": state, "digest": "d1", "installs": installs, "files": files, "links": links, **arguments}
    return run_module("generation", check, prefix=str(prefix), **given)


def test_a_generation_ties_installs_and_files_together(prefix: Path) -> None:
    install = build(prefix)
    result = generation(prefix)
    folder = Path(result["path"])
    assert result["changed"] and folder == prefix / "generations/1"
    assert (folder / "base").readlink() == install
    assert (folder / "usr/local/lib64").readlink() == install / "lib64"
    assert (folder / "activate.sh").read_text() == f"cd {folder}\n"
    assert os.access(folder / "bin/check-ladder", os.X_OK)
    assert os.access(folder / "tools/a.py", os.X_OK)
    assert not os.access(folder / "activate.sh", os.X_OK)
    assert not (prefix / "current").is_symlink()
    for path in (folder, *folder.rglob("*")):
        assert path.is_symlink() or path.stat().st_mode & 0o222 == 0, path
    assert temporary(prefix) == []


def test_the_same_generation_is_made_once(prefix: Path) -> None:
    build(prefix)
    first, second = generation(prefix), generation(prefix)
    assert (first["path"], second["changed"]) == (second["path"], False)


def test_another_generation_gets_the_next_number_and_current_moves_to_it(prefix: Path) -> None:
    build(prefix)
    for number, digest in ((1, "d1"), (2, "d2")):
        generation(prefix, digest=digest)
        assert generation(prefix, "current", digest=digest)["changed"]
        assert not generation(prefix, "current", digest=digest)["changed"]
        assert os.readlink(prefix / "current") == f"generations/{number}"
    assert generation(prefix, "current", digest="d1")["changed"]  # a way back
    assert os.readlink(prefix / "current") == "generations/1"


def test_current_is_never_without_a_generation(prefix: Path) -> None:
    """Whoever resolves it while it moves sees the one or the other."""
    build(prefix)
    for digest in ("d1", "d2"):
        generation(prefix, digest=digest)
    generation(prefix, "current", digest="d1")
    arguments: dict[str, Any] = {"prefix": str(prefix), "state": "current", "digest": "d2", "installs": {}}
    moving = Running("generation", **arguments)
    seen = set()
    while not moving.ended():
        seen.add(os.path.realpath(prefix / "current"))
    assert moving.result()["changed"]
    seen.add(os.path.realpath(prefix / "current"))
    assert seen == {str(prefix / "generations/1"), str(prefix / "generations/2")}


def test_two_servers_of_a_shared_home_may_make_it_at_once(prefix: Path) -> None:
    build(prefix)
    arguments: dict[str, Any] = {
        "prefix": str(prefix),
        "state": "staged",
        "digest": "d1",
        "files": {"activate.sh": "\n"},
    }
    installs = {"base": {"path": found(prefix)["base"]["path"]}}
    started = [Running("generation", **arguments, installs=installs) for _server in range(4)]
    paths = {process.result()["path"] for process in started}
    assert {Path(path).parent for path in paths} == {prefix / "generations"}
    assert sorted(os.listdir(prefix / "generations")) == sorted(Path(path).name for path in paths)
    assert all(install_state(path)["state"] == "present" for path in paths)
    assert temporary(prefix) == []


def test_a_damaged_generation_is_not_used_again(prefix: Path) -> None:
    build(prefix)
    folder = Path(generation(prefix)["path"])
    generation(prefix, "current")
    os.truncate(folder / "activate.sh", 0)
    assert look_up(prefix)["generation"] == {}
    why = "activate.sh has another size"
    assert look_up(prefix)["current"] == {"path": str(folder), "state": "damaged", "why": why}
    assert generation(prefix)["path"] == str(prefix / "generations/2")
    assert generation(prefix, "current")["changed"]
    assert look_up(prefix)["generation"]["digest"] == "d1"


def test_a_generation_of_other_content_is_not_used_again_where_contents_are_compared(prefix: Path) -> None:
    build(prefix)
    activation = Path(generation(prefix)["path"]) / "activate.sh"
    generation(prefix, "current")
    times, mode = activation.stat(), activation.stat().st_mode
    activation.chmod(0o644)
    activation.write_bytes(activation.read_bytes()[::-1])
    activation.chmod(mode)
    os.utime(activation, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert look_up(prefix)["generation"]["digest"] == "d1"
    assert not generation(prefix)["changed"]
    assert look_up(prefix, deep=True)["current"]["why"] == "activate.sh has other content"
    assert generation(prefix, deep=True)["path"] == str(prefix / "generations/2")
    assert generation(prefix, "current", deep=True)["changed"]
    assert look_up(prefix, deep=True)["generation"]["digest"] == "d1"


def test_a_generation_without_an_install_names_the_tag(prefix: Path) -> None:
    message = generation(prefix)["msg"]
    assert "A generation needs base, which is absent here" in message
    assert "--tags base" in message
    assert not prefix.exists()


def test_what_is_not_staged_cannot_become_current(prefix: Path) -> None:
    build(prefix)
    assert "has no generation d9 to make current" in generation(prefix, "current", digest="d9")["msg"]
    assert not (prefix / "current").is_symlink()


def test_the_last_step_removes_what_a_run_left_that_died_after_publishing(prefix: Path) -> None:
    build(prefix)
    left = [prefix / "var/lease" / f"base-{found(prefix)['base']['digest']}.json"]
    left.append(Path(temporary_folder(str(prefix))) / "generation-half")
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    generation(prefix)
    generation(prefix, "current")
    assert [path for path in left if path.exists()] == []


def test_check_mode_makes_no_generation(prefix: Path) -> None:
    for state in ("staged", "current"):
        assert generation(prefix, state, check=True)["changed"]
    assert not prefix.exists()


def test_a_generation_that_cannot_be_written_is_one_sentence(prefix: Path) -> None:
    build(prefix)
    (prefix / "generations").rmdir()
    (prefix / "generations").touch()
    message = generation(prefix)["msg"]
    assert message.startswith("The generation could not be made below ")
    assert message.endswith("The current one is untouched.")
    assert temporary(prefix) == []


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_under_an_open_umask_nobody_else_can_write_anything(prefix: Path) -> None:
    path = begun(prefix)
    (path / "by_another_program").write_text("open")
    assert path.stat().st_mode & 0o777 == 0o700, "what is built can be changed by others before it is published"
    publish(prefix)
    for state in ("staged", "current"):
        generation(prefix, state, files={"bin/check-ladder": ""})
    assert [one for one in prefix.rglob("*") if not one.is_symlink() and one.stat().st_mode & 0o002] == []
