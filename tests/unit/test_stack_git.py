"""Trees exported from real git repositories."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils import stack_fetch
from ansible.module_utils.stack_fetch import export_commit, git
from ansible.module_utils.stack_installs import StackError

UNKNOWN = "c" * 40


def run_git(folder: Path, *arguments: str) -> str:
    """Git with no settings of this machine's."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        **{"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        **{f"GIT_{who}_{what}": "a@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A work tree with two commits, and what git does not know in it; (folder, commit ids)."""
    folder = tmp_path_factory.mktemp("tree")
    run_git(folder, "init", "--quiet", "--initial-branch=main")
    commits = []
    for text in ("first", "second"):
        (folder / "file").write_text(text)
        run_git(folder, "add", "file")
        run_git(folder, "commit", "--quiet", "--message", text)
        commits.append(run_git(folder, "rev-parse", "HEAD"))
    (folder / "stale.so").touch()
    return folder, commits


def bare(tree: Path, path: Path) -> str:
    run_git(tree, "clone", "--quiet", "--bare", str(tree), str(path))
    return str(path)


def shallow(tree: Path, path: Path) -> str:
    run_git(tree, "clone", "--quiet", "--bare", "--depth=1", tree.as_uri(), str(path))
    return str(path)


def by_url(tree: Path, path: Path) -> str:
    return Path(bare(tree, path)).as_uri()


def by_url_without_single_commits(tree: Path, path: Path) -> str:
    url = by_url(tree, path)
    run_git(path, "config", "protocol.version", "0")
    return url


def exported(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as archive:
        opened = {info.name: archive.extractfile(info) for info in archive.getmembers()}
        return {name: stream.read() if stream else b"" for name, stream in opened.items()}


@pytest.mark.parametrize("make", [lambda tree, path: str(tree), bare, shallow, by_url, by_url_without_single_commits])
def test_a_commit_is_exported_without_what_git_does_not_know(
    tmp_path: Path, tree: tuple[Path, list[str]], make: Callable[[Path, Path], str]
) -> None:
    repository = make(tree[0], tmp_path / "repository.git")
    tar = tmp_path / "cache" / "tree.tar"
    tar.parent.mkdir()
    assert export_commit([repository], tree[1][1], str(tar), timeout=60) == repository
    assert exported(tar) == {"file": b"second"}
    assert os.listdir(tar.parent) == ["tree.tar"]


@pytest.mark.parametrize("make", [bare, by_url])
def test_an_older_commit_is_exported(
    tmp_path: Path, tree: tuple[Path, list[str]], make: Callable[[Path, Path], str]
) -> None:
    export_commit([make(tree[0], tmp_path / "r.git")], tree[1][0], str(tmp_path / "tree.tar"), timeout=60)
    assert exported(tmp_path / "tree.tar") == {"file": b"first"}


def test_a_server_that_hands_out_branches_only_is_asked_for_all(
    tmp_path: Path, tree: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.version")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "0")
    export_commit([by_url(tree[0], tmp_path / "r.git")], tree[1][0], str(tmp_path / "tree.tar"), timeout=60)
    assert exported(tmp_path / "tree.tar") == {"file": b"first"}


def test_the_first_repository_that_has_it_is_used(tmp_path: Path, tree: tuple[Path, list[str]]) -> None:
    newest, whole = shallow(tree[0], tmp_path / "a.git"), bare(tree[0], tmp_path / "b.git")
    repositories = ["/no/repository.git", newest, whole]
    assert export_commit(repositories, tree[1][0], str(tmp_path / "tree.tar"), timeout=60) == whole


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a repository to another login")
def test_a_repository_of_another_login_is_read(tmp_path: Path, tree: tuple[Path, list[str]]) -> None:
    """In a shared folder. Git itself refuses: "detected dubious ownership"."""
    repository = bare(tree[0], tmp_path / "r.git")
    for path in (tmp_path / "r.git", *(tmp_path / "r.git").rglob("*")):
        os.chown(path, 12345, 12345)
    export_commit([repository], tree[1][1], str(tmp_path / "tree.tar"), timeout=60)


@pytest.mark.parametrize("make", [bare, by_url])
def test_an_unknown_commit_is_one_sentence(
    tmp_path: Path, tree: tuple[Path, list[str]], make: Callable[[Path, Path], str]
) -> None:
    repository = make(tree[0], tmp_path / "r.git")
    with pytest.raises(StackError, match=f"Commit {UNKNOWN} could not be had") as caught:
        export_commit(["/no/repository.git", repository], UNKNOWN, str(tmp_path / "tree.tar"), timeout=60)
    assert re.search(rf"Tried: /no/repository.git: .+; {repository}: .+{UNKNOWN}. Fill a mirror", str(caught.value))
    assert sorted(os.listdir(tmp_path)) == ["r.git"]


def test_a_folder_in_a_repository_is_not_that_repository(tmp_path: Path, tree: tuple[Path, list[str]]) -> None:
    """An empty mirror/git/x.git of this very checkout, say."""
    inside = tree[0] / "git" / "x.git"
    inside.mkdir(parents=True)
    with pytest.raises(StackError, match="could not be had"):
        export_commit([str(inside)], tree[1][1], str(tmp_path / "tree.tar"), timeout=60)


def test_a_repository_that_begins_with_a_dash_is_no_option(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    with pytest.raises(StackError, match="could not be had"):
        export_commit([f"--upload-pack=touch {evil};"], UNKNOWN, str(tmp_path / "tree.tar"), timeout=60)
    assert not evil.exists()


def test_no_repository_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="Tried: nothing, for stack_upstream is false"):
        export_commit([], UNKNOWN, str(tmp_path / "tree.tar"), timeout=60)


def test_a_repository_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nexec sleep 5\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert git(str(tmp_path), "fetch", timeout=0.1) == "no answer within 0 s"


def test_without_git_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*_arguments: object, **_options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(stack_fetch.subprocess, "run", missing)
    with pytest.raises(StackError, match=r"git is not installed here\. Fill a mirror on the controller"):
        git(str(tmp_path), "status")
