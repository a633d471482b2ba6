"""Temporary files: what killed runs leave goes with the next run, what is in use stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.stack_installs import RECEIPT, claim, temporary_folder
from ansible.module_utils.stack_lease import lease_path
from ansible.module_utils.stack_temporary import new_temporary, sweep


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    claim(str(tmp_path), "mine")
    return tmp_path


def fill(folder: Path, *names: str) -> None:
    """Make folders with a file in each; one called `old` was made long ago."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "file").touch()
        if name == "old":
            os.utime(folder / name, (0, 0))


def test_each_server_has_temporary_files_of_its_own(prefix: Path) -> None:
    assert Path(new_temporary(str(prefix), "made")).parent == prefix / "var/tmp" / socket.gethostname()


def test_where_nobody_works_all_goes(prefix: Path) -> None:
    fill(Path(temporary_folder(str(prefix))), "conda-half", "garbage-1", "old")
    sweep(str(prefix))
    assert os.listdir(temporary_folder(str(prefix))) == []


@pytest.mark.parametrize("how", ["environment", "argument", "folder"])
def test_while_somebody_works_only_garbage_and_the_old_goes(prefix: Path, how: str) -> None:
    folder = temporary_folder(str(prefix))
    fill(Path(folder), "conda-half", "garbage-1", "old")
    worker = subprocess.Popen(
        [sys.executable, "-c", "input()", *([folder] if how == "argument" else [])],
        stdin=subprocess.PIPE,
        env=os.environ | ({"TMPDIR": folder} if how == "environment" else {}),
        cwd=folder if how == "folder" else None,
    )
    try:
        sweep(str(prefix))
    finally:
        worker.communicate(b"\n")
    assert os.listdir(folder) == ["conda-half"]
    sweep(str(prefix))
    assert os.listdir(folder) == []


def test_those_who_started_the_sweep_do_not_count(prefix: Path) -> None:
    """Ansible unpacks a module in this very folder, and its shell's environment says so."""
    folder = temporary_folder(str(prefix))
    fill(Path(folder), "conda-half")
    fill(Path(folder), "ansible_payload")
    program = "\n".join(
        (
            "import sys, ansible.module_utils as m",
            f"m.__path__.append({str(Path('plugins/module_utils').resolve())!r})",
            f"sys.path.append({folder + '/ansible_payload/module.zip'!r})",
            "from ansible.module_utils.stack_temporary import sweep",
            f"sweep({str(prefix)!r})",
        )
    )
    subprocess.run(
        ["sh", "-c", '"$0" "$@"; true', sys.executable, "-c", program],
        env=os.environ | {"TMPDIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert os.listdir(folder) == ["ansible_payload"]


def test_of_another_server_only_garbage_and_the_old_goes(prefix: Path) -> None:
    other = prefix / "var/tmp/another"
    fill(other, "conda-half", "garbage-1", "old")
    fill(prefix / "var/tmp", "old", "garbage-1", "ansible-tmp-1")  # by a version that had no folder for each server
    sweep(str(prefix))
    assert os.listdir(other) == ["conda-half"]
    assert set(os.listdir(prefix / "var/tmp")) == {socket.gethostname(), "another", "ansible-tmp-1"}


@pytest.mark.parametrize(("lease", "receipt", "stays"), [(1, 2, False), (2, 1, True), (1, None, True)])
def test_a_lease_goes_when_its_install_was_published_after_it(
    prefix: Path, lease: int, receipt: int | None, stays: bool
) -> None:
    """Younger than the receipt is the lease of whoever rebuilds a damaged install."""
    path = Path(lease_path(str(prefix), "tool", "abc"))
    path.touch()
    os.utime(path, (lease, lease))
    if receipt:
        published = prefix / "opt/tool/1.0-abc" / RECEIPT
        published.parent.mkdir(parents=True)
        published.touch()
        os.utime(published, (receipt, receipt))
    sweep(str(prefix))
    assert path.exists() == stays


def test_the_draft_of_a_lease_goes_after_a_minute(prefix: Path) -> None:
    for name in ("tool-abc.json.1", "tool-abc.json.2"):
        (prefix / "var/lease" / name).touch()
    os.utime(prefix / "var/lease/tool-abc.json.1", (0, 0))
    sweep(str(prefix))
    assert os.listdir(prefix / "var/lease") == ["tool-abc.json.2"]
