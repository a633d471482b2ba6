"""Installs: identity, state, publishing, removal, and whose a prefix is."""

from __future__ import annotations

import builtins
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import stack_installs
from ansible.module_utils.stack_installs import (
    MANIFEST,
    MARKER,
    RECEIPT,
    StackError,
    canonical,
    check_owner,
    claim,
    digest,
    install_state,
    owner_of,
    publish,
    read_json,
    remove_tree,
    settled_state,
    sha256_of,
    unpinned,
    write_json,
)

SUM = "a" * 64
COMMIT = "b" * 40


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Path]:
    """A published install with a file, a program, a folder and a link. Given back writable, for pytest's clean-up."""
    root = tmp_path / "opt" / "role" / "1.0-abc"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "module.py").write_text("value = 1\n")
    (root / "program").write_text("#!/bin/sh\n")
    (root / "program").chmod(0o777)
    (root / "lib" / "latest.py").symlink_to("module.py")
    publish(str(root), {"role": "role"})
    yield root
    remove_tree(str(root))


# --- Identity ---------------------------------------------------------------------------------------------------------


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})


def test_a_digest_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert digest({"version": "1.0", "name": "é"}) == "282792a9b302"


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": [1]}, {"b": 1}, {"a": 1, "b": None}, {}])
def test_a_digest_differs_with_the_data(other: dict[str, Any]) -> None:
    assert digest(other) != digest({"a": 1})


def test_canonical_bytes_are_ascii() -> None:
    assert canonical({"ü": "\u2028"}).isascii()


# --- What a lock must say ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"wheels": [{"filename": "a.whl", "sha256": None}]}, "sha256 of a.whl is not known (null in the lock)"),
        ({"wheels": [{"filename": "a.whl", "sha256": None}]}, "playbooks/lock.yml"),
        ({"sha256": "abc"}, "not 64 hex digits: 'abc'"),
        ({"sha256": "A" * 64}, "not 64 hex digits"),
        ({"sha256": 17}, "not 64 hex digits: 17"),
        ({"detectron": {"inputs": {"commit": "master"}}}, "The commit of detectron is 'master': give a full commit id"),
        ({"detectron": {"commit": COMMIT[:12]}}, "The commit of detectron is 'bbbbbbbbbbbb'"),
        ({"detectron": {"commit": None}}, "The commit of detectron is None"),
        ({"filename": "a", "source": "url", "sha256": SUM, "licence": "MIT"}, "a in the lock needs all of"),
    ],
)
def test_what_does_not_pin_its_bytes_is_refused(data: dict[str, Any], says: str) -> None:
    assert says in " ".join(unpinned(data))


def test_unknown_sums_share_one_sentence() -> None:
    (sentence,) = unpinned([{"filename": name, "sha256": None} for name in ("a", "b", "c")])
    assert "a, b, c" in sentence


def test_a_pinned_lock_has_no_problems() -> None:
    file = {"filename": "a", "source": "url", "sha256": SUM, "size": 1, "licence": "MIT"}
    assert unpinned({"files": [file], "git": {"commit": COMMIT}, "name": "x", "built": {"sha256": SUM}}) == []


# --- JSON files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "null", '"text"', "[" * 100_000, b"\xff\xfe\x00".decode("latin-1")]
)
def test_anything_but_an_object_reads_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "file.json").write_text(content, encoding="latin-1")
    assert read_json(str(tmp_path / "file.json")) == {}


@pytest.mark.parametrize("name", ["absent", "folder", "file/below"])
def test_no_file_reads_as_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert read_json(str(tmp_path / name)) == {}


def test_writing_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(str(path), {"a": 1})
    with pytest.raises(TypeError):
        write_json(str(path), {"a": object()})
    assert read_json(str(path)) == {"a": 1}
    assert os.listdir(tmp_path) == ["file.json"]


# --- State ------------------------------------------------------------------------------------------------------------


def test_a_published_install_is_present(install: Path) -> None:
    assert install_state(str(install), deep=True) == {"state": "present", "why": "4 paths as recorded"}


def test_no_folder_is_absent(tmp_path: Path) -> None:
    assert install_state(str(tmp_path / "none")) == {"state": "absent", "why": "not installed"}


@pytest.mark.parametrize("begun", [[], ["file"], [MANIFEST], [f"{RECEIPT}.abc.new"]])
def test_a_build_without_a_receipt_is_absent(tmp_path: Path, begun: list[str]) -> None:
    for name in begun:
        (tmp_path / name).write_text("{}")
    assert install_state(str(tmp_path)) == {"state": "absent", "why": "started but never finished"}


def writable(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """`change`, by somebody who made the folders writable and read-only again."""

    def changed(root: Path) -> None:
        for folder in (root, root / "lib"):
            folder.chmod(0o755)
        change(root)
        for folder in (root, root / "lib"):
            if folder.is_dir():
                folder.chmod(0o555)

    return changed


def rewrite(root: Path, keep_time: bool) -> None:
    path = root / "lib" / "module.py"
    before = path.stat()
    path.chmod(0o644)
    path.write_text("value = 2\n")
    path.chmod(0o444)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def relink(root: Path) -> None:
    (root / "lib" / "latest.py").unlink()
    (root / "lib" / "latest.py").symlink_to("/etc/passwd")


def replace_by_link(root: Path) -> None:
    (root / "program").unlink()
    (root / "program").symlink_to("lib/module.py")


def alter_manifest(root: Path) -> None:
    manifest = read_json(str(root / MANIFEST))
    del manifest["program"]
    (root / MANIFEST).chmod(0o644)
    (root / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (writable(lambda root: (root / "program").unlink()), "program is missing"),
        (writable(lambda root: remove_tree(str(root / "lib"))), "lib is missing; lib/"),
        (lambda root: os.truncate(root / "program", 0), "program has another size"),
        (lambda root: (root / "program").chmod(0o755), "program has another mode"),
        (lambda root: (root / "lib").chmod(0o755), "lib has another mode"),
        (lambda root: os.utime(root / "program"), "program has another time"),
        (lambda root: rewrite(root, keep_time=False), "lib/module.py has another time"),
        (writable(relink), "lib/latest.py points elsewhere"),
        (writable(replace_by_link), "program has another type"),
        (writable(alter_manifest), f"{MANIFEST} is missing or altered"),
        (writable(lambda root: (root / MANIFEST).unlink()), f"{MANIFEST} is missing or altered"),
    ],
)
def test_a_change_is_damage(install: Path, change: Callable[[Path], object], why: str) -> None:
    change(install)
    state = install_state(str(install))
    assert state["state"] == "damaged"
    assert why in state["why"]


@pytest.mark.parametrize("seen", ["damaged", "gone"])
def test_an_install_that_another_server_replaces_meanwhile_is_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """Else the whole one that has just come would be taken for the damaged one that it replaces."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    judged = []

    def judge(root: str, deep: bool) -> dict[str, str]:
        judged.append(root)
        if len(judged) > 1:
            return {"state": "present"}
        (tmp_path / "old").rename(tmp_path / "aside")
        (tmp_path / "new").rename(tmp_path / "old")
        if seen == "gone":
            raise FileNotFoundError(root)
        return {"state": "damaged"}

    monkeypatch.setattr(stack_installs, "install_state", judge)
    assert settled_state(str(tmp_path / "old"), deep=False, pause=0)["state"] == "present"
    assert len(judged) == 2


def test_an_install_that_never_comes_to_rest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(root: str, deep: bool) -> dict[str, str]:
        raise FileNotFoundError(root)

    monkeypatch.setattr(stack_installs, "install_state", vanish)
    with pytest.raises(OSError, match="is replaced again and again"):
        settled_state(str(tmp_path), deep=False, pause=0)


def test_only_the_deep_look_finds_a_flipped_byte(install: Path) -> None:
    rewrite(install, keep_time=True)
    assert install_state(str(install))["state"] == "present"
    assert install_state(str(install), deep=True) == {"state": "damaged", "why": "lib/module.py has other content"}


def test_what_was_added_is_no_damage(install: Path) -> None:
    writable(lambda root: (root / "lib" / "module.pyc").touch())(install)
    assert install_state(str(install))["state"] == "present"


def test_of_much_damage_three_paths_are_named(tmp_path: Path) -> None:
    root = tmp_path / "install"
    root.mkdir()
    for number in range(5):
        (root / str(number)).touch()
    publish(str(root), {})
    for number in range(5):
        (root / str(number)).unlink()
    assert install_state(str(root))["why"].endswith("and 2 more")


@pytest.mark.parametrize(
    ("receipt", "manifest", "state"),
    [
        ("[]", "{}", "absent"),
        ("{", "{}", "absent"),
        ("{}", "{}", "absent"),
        ('{"manifest_sha256": 1}', '{"a": 1}', "damaged"),
        ('{"manifest_sha256": "SUM"}', '{"a": 1}', "damaged"),
        ('{"manifest_sha256": "SUM"}', '{"a": []}', "damaged"),
        ('{"manifest_sha256": "SUM"}', '{"a": "12345"}', "damaged"),
        ('{"manifest_sha256": "SUM"}', "[]", "damaged"),
        ('{"manifest_sha256": "SUM"}', '{"../../../etc/passwd": ["file", 1, 1, 1, ""]}', "damaged"),
        ('{"manifest_sha256": "SUM"}', '{"/etc/passwd": [{}, [], null, "", 3]}', "damaged"),
        ('{"manifest_sha256": "SUM"}', "[" * 100_000, "damaged"),
    ],
)
def test_hostile_json_is_a_state_not_a_traceback(tmp_path: Path, receipt: str, manifest: str, state: str) -> None:
    (tmp_path / MANIFEST).write_text(manifest)
    (tmp_path / RECEIPT).write_text(receipt.replace("SUM", sha256_of(str(tmp_path / MANIFEST))))
    for deep in (False, True):
        assert install_state(str(tmp_path), deep)["state"] == state


def test_paths_are_looked_up_without_opening_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "install"
    (tmp_path / "file").touch()
    for folder in range(10):
        (root / f"folder{folder}").mkdir(parents=True)
        for file in range(9):
            (root / f"folder{folder}" / f"file{file}").hardlink_to(tmp_path / "file")
    publish(str(root), {})
    opened: list[str] = []
    really_open = builtins.open

    def noted(path: Any, *positional: Any, **named: Any) -> Any:
        opened.append(Path(path).name)
        return really_open(path, *positional, **named)

    monkeypatch.setattr(builtins, "open", noted)
    assert install_state(str(root)) == {"state": "present", "why": "100 paths as recorded"}
    assert set(opened) == {MANIFEST, RECEIPT}
    remove_tree(str(root))


# --- Publishing -------------------------------------------------------------------------------------------------------


def test_what_is_published_is_read_only_for_all(install: Path) -> None:
    for path in (install, *install.rglob("*")):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o222 == 0, path


@pytest.mark.parametrize(
    ("before", "after"), [(0o6777, 0o555), (0o2755, 0o555), (0o1666, 0o444), (0o600, 0o400), (0o000, 0o400)]
)
def test_publishing_takes_write_and_set_id_bits(tmp_path: Path, before: int, after: int) -> None:
    root = tmp_path / "install"
    root.mkdir()
    (root / "file").touch()
    (root / "file").chmod(before)
    publish(str(root), {})
    assert stat.S_IMODE((root / "file").stat().st_mode) == after


def test_publishing_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "outside").touch(mode=0o666)
    (tmp_path / "outside").chmod(0o666)
    root = tmp_path / "install"
    root.mkdir()
    (root / "link").symlink_to("../outside")
    publish(str(root), {})
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o666


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


@pytest.mark.parametrize("make", [make_socket, os.mkfifo])
def test_sockets_and_pipes_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    root = tmp_path / "i"
    root.mkdir()
    make(root / "odd")
    with pytest.raises(StackError, match="odd is neither a file, a folder nor a link"):
        publish(str(root), {})
    assert install_state(str(root))["state"] == "absent"


def test_the_receipt_keeps_the_facts_and_counts(install: Path) -> None:
    receipt = read_json(str(install / RECEIPT))
    assert receipt["role"] == "role"
    assert (receipt["paths"], receipt["bytes"]) == (4, len("value = 1\n#!/bin/sh\n"))


def test_publishing_again_after_a_failure_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "install"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "file").touch()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            publish(str(root), {})
    assert install_state(str(root))["state"] == "absent"
    publish(str(root), {})
    assert install_state(str(root))["state"] == "present"


# --- Removing ---------------------------------------------------------------------------------------------------------


def test_a_read_only_tree_with_all_kinds_is_removed(tmp_path: Path, install: Path) -> None:
    writable(lambda root: os.mkfifo(root / "lib" / "pipe"))(install)
    remove_tree(str(install))
    assert not install.exists()


def test_removing_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "removed").mkdir()
    (tmp_path / "removed" / "link").symlink_to("../kept")
    (tmp_path / "link").symlink_to("kept")
    remove_tree(str(tmp_path / "removed"))
    remove_tree(str(tmp_path / "link"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


def test_removing_nothing_is_fine(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "none"))


# --- Whose a prefix is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["makedirs", "write_json"])
def test_of_two_servers_that_claim_it_at_once_the_one_that_made_the_folders_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Else they would stay when the stack is removed. The other one claims after the folders were made."""
    prefix = tmp_path / "detectron" / "mine"
    holder = stack_installs if moment == "write_json" else os
    done = getattr(holder, moment)

    def interrupted(*given: Any, **more: Any) -> None:
        monkeypatch.setattr(holder, moment, done)
        if moment == "makedirs":
            done(*given, **more)
        claim(str(prefix), "mine")
        if moment == "write_json":
            done(*given, **more)

    monkeypatch.setattr(holder, moment, interrupted)
    claim(str(prefix), "mine")
    assert json.loads((prefix / MARKER).read_text())["made"] == [str(prefix), str(prefix.parent)]


def test_a_broken_marker_of_an_empty_prefix_is_mended(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("{")
    claim(str(tmp_path), "mine")
    assert owner_of(str(tmp_path)) == "mine"


def test_a_claimed_prefix_is_owned(tmp_path: Path) -> None:
    prefix = str(tmp_path / "below" / "prefix")
    assert owner_of(prefix) is None
    claim(prefix, "mine")
    claim(prefix, "mine")
    assert owner_of(prefix) == "mine"
    assert sorted(os.listdir(prefix)) == [MARKER, "checks", "generations", "opt", "var"]


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    check_owner(str(tmp_path), "mine")


def test_a_prefix_may_be_a_link_to_a_larger_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "prefix").symlink_to("disk")
    claim(str(tmp_path / "prefix"), "mine")
    assert (tmp_path / "disk" / MARKER).is_file()


def test_what_ansible_makes_without_pipelining_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "var" / "tmp" / "ansible-tmp-1").mkdir(parents=True)
    check_owner(str(tmp_path), "mine")


def test_the_draft_of_a_marker_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / f"{MARKER}.abc.new").touch()
    check_owner(str(tmp_path), "mine")


@pytest.mark.parametrize("name", ["thesis.tex", "var/lib/database", ".hidden", "opt/program"])
def test_a_foreign_folder_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StackError, match=r"is not empty and was not made by this project.*Set stack_prefix"):
        claim(str(tmp_path), "mine")
    assert sorted(tmp_path.rglob("*")) == before


def test_another_stacks_prefix_is_refused(tmp_path: Path) -> None:
    claim(str(tmp_path), "theirs")
    with pytest.raises(StackError, match="belongs to stack theirs, not mine"):
        claim(str(tmp_path), "mine")


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.symlink_to("nowhere")])
def test_a_file_in_place_of_a_prefix_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "prefix")
    with pytest.raises(StackError, match="is not a folder"):
        claim(str(tmp_path / "prefix"), "mine")
