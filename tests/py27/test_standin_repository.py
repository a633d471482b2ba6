"""The program that makes git repositories of the stand-in Detectron and of the COCO API's code."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from py27_sources import STANDIN

SETUP = "Extension('_mask', sources=['./common/maskApi.c', '_mask.pyx'], include_dirs=['./common'])\n"
SDIST = {"setup.py": SETUP, "PKG-INFO": "", "common/maskApi.c": "// C\n", "pycocotools/_mask.pyx": "# Cython\n"}


def make(*arguments: str | Path, script: Path = STANDIN / "make_repository.py", umask: int = -1) -> str:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, umask=umask).stdout.strip()


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "--git-dir", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sdist(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"pycocotools-2.0.2/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_the_same_sources_give_the_same_commit_whatever_umask_place_and_litter(tmp_path: Path) -> None:
    first = make(tmp_path / "first.git", umask=0o022)
    assert re.fullmatch(r"[0-9a-f]{40}", first)
    copied = tmp_path / "copy"
    shutil.copytree(STANDIN, copied)
    for path in copied.rglob("*"):
        os.utime(path, (0, 0))
        path.chmod(0o700)
    for name in ("build/x.o", "detectron/utils/cython_nms.so", "detectron/utils/cython_nms.c", "detectron/env.pyc"):
        (copied / "detectron" / name).parent.mkdir(exist_ok=True)
        (copied / "detectron" / name).write_bytes(b"built")
    assert make(tmp_path / "second.git", script=copied / "make_repository.py", umask=0o077) == first


def test_the_repository_is_sound_and_holds_the_programs_as_executables(tmp_path: Path) -> None:
    commit = make(tmp_path / "r.git")
    assert git(tmp_path / "r.git", "rev-parse", "HEAD").strip() == commit
    git(tmp_path / "r.git", "fsck", "--strict")
    listing = git(tmp_path / "r.git", "ls-tree", "-r", commit)
    executables = re.findall(r"^100755 blob \w+\t(.*)$", listing, re.M)
    assert executables == ["tools/infer_simple.py", "tools/test_net.py", "tools/train_net.py"]
    assert "detectron/utils/cython_bbox.pyx" in listing


def test_making_it_again_changes_nothing_and_a_new_commit_keeps_the_old(tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(STANDIN, copied)
    first = make(tmp_path / "r.git", script=copied / "make_repository.py")
    assert make(tmp_path / "r.git", script=copied / "make_repository.py") == first
    (copied / "detectron" / "README.md").write_text("changed\n")
    second = make(tmp_path / "r.git", script=copied / "make_repository.py")
    assert second != first
    assert git(tmp_path / "r.git", "show", f"{second}:README.md") == "changed\n"
    assert "stand-in" in git(tmp_path / "r.git", "show", f"{first}:README.md")


def test_the_callers_git_configuration_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = make(tmp_path / "plain.git")
    (tmp_path / ".gitconfig").write_text("[core]\nautocrlf = true\n[init]\ndefaultBranch = trunk\n[user]\nname = x\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere.git"))
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00")
    assert make(tmp_path / "configured.git") == expected
    assert not (tmp_path / "elsewhere.git").exists()


def test_coco_api_gets_the_layout_of_its_repository(tmp_path: Path) -> None:
    archive = sdist(tmp_path / "a.tar.gz", SDIST)
    commit = make("--cocoapi", archive, tmp_path / "a.git", umask=0o022)
    assert make("--cocoapi", archive, tmp_path / "b.git", umask=0o077) == commit
    names = git(tmp_path / "a.git", "ls-tree", "-r", "--name-only", commit).split()
    assert names == ["PythonAPI/pycocotools/_mask.pyx", "PythonAPI/setup.py", "common/maskApi.c"]
    adapted = git(tmp_path / "a.git", "show", f"{commit}:PythonAPI/setup.py")
    assert adapted == SETUP.replace("'./common", "'../common")


@pytest.mark.parametrize("missing", ["setup.py", "common/maskApi.c", "pycocotools/_mask.pyx"])
def test_another_archive_is_refused_in_one_sentence(tmp_path: Path, missing: str) -> None:
    archive = sdist(tmp_path / "a.tar.gz", {name: text for name, text in SDIST.items() if name != missing})
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("--cocoapi", archive, tmp_path / "a.git")
    assert failed.value.returncode == 1
    assert failed.value.stderr.startswith("make_repository.py: ")
    assert "is not a source archive of pycocotools 2.0.2" in failed.value.stderr
    assert not (tmp_path / "a.git").exists()


def test_the_stand_in_keeps_the_traps_of_the_real_one() -> None:
    requirements = (STANDIN / "detectron" / "requirements.txt").read_text()
    assert "networkx" not in requirements
    assert "enum34" not in requirements
    assert "pyyaml==3.12" in requirements
    assert "'--user'" in (STANDIN / "detectron" / "Makefile").read_text()


@pytest.mark.parametrize("tool", ["train_net", "test_net", "infer_simple"])
def test_every_tool_says_that_it_is_a_stand_in(tool: str) -> None:
    assert "print(detectron.STAND_IN, file=sys.stderr)" in (STANDIN / "detectron" / "tools" / f"{tool}.py").read_text()
