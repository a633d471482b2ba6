"""Pushing from a mirror on the controller, and progress of what takes long."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from ansible.errors import AnsibleActionFail
from ansible.module_utils import stack_progress

MIB = 1 << 20
CONTENT = os.urandom(MIB) * 5 + b"odd end"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


def artifact(name: str = "wheel.whl", content: bytes = CONTENT) -> dict[str, Any]:
    known: dict[str, Any] = {"filename": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return {**known, "source": "url", "urls": ["http://127.0.0.1:1/upstream"], "licence": "MIT"}


def put(mirror: Path, entry: dict[str, Any], content: bytes = CONTENT) -> Path:
    path: Path = mirror / "sha256" / entry["sha256"] / entry["filename"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fetching(tmp_path: Path, mirror: Path, *artifacts: dict[str, Any], **options: Any) -> Action:
    given = {"artifacts": list(artifacts), "cache": str(tmp_path / "cache"), "mirror": f"controller:{mirror}"}
    action = Action("fetch_artifacts", **{**given, **options})
    action.plugin.PIECE = 2 * MIB  # type: ignore[attr-defined]
    return action


def part(tmp_path: Path, entry: dict[str, Any]) -> Path:
    path: Path = tmp_path / "cache" / "sha256" / entry["sha256"] / f"{entry['filename']}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_what_the_mirror_has_is_pushed_in_pieces(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact())
    result = action.run()
    assert Path(result["files"]["wheel.whl"]).read_bytes() == CONTENT
    assert result["origin"] == {"wheel.whl": "mirror (pushed from the controller)"}
    assert result["changed"]
    assert len(action.commands) == 3
    assert len(action.modules) == 2  # a look before and one after


def test_what_the_server_has_is_not_pushed(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact())
    action.run()
    result = action.run()
    assert (result["changed"], result["origin"], action.commands) == (False, {"wheel.whl": "cache"}, [])


@pytest.mark.parametrize("have", [1, MIB - 1, MIB, 3 * MIB + 17, len(CONTENT) - 1])
def test_a_push_goes_on_where_it_was_cut(tmp_path: Path, mirror: Path, have: int) -> None:
    put(mirror, artifact())
    part(tmp_path, artifact()).write_bytes(CONTENT[:have])
    action = fetching(tmp_path, mirror, artifact())
    assert Path(action.run()["files"]["wheel.whl"]).read_bytes() == CONTENT
    assert f"seek={have // MIB}" in action.commands[0]


def test_a_push_that_breaks_says_how_to_go_on_and_the_next_run_does(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact())
    action.cut_command = 2
    with pytest.raises(AnsibleActionFail, match=r"wheel.whl could not be pushed: the connection broke\. .*again"):
        action.run()
    assert part(tmp_path, artifact()).stat().st_size == 3 * MIB
    action.cut_command = None
    assert Path(action.run()["files"]["wheel.whl"]).read_bytes() == CONTENT
    assert "seek=3" in action.commands[0]


def test_a_piece_that_ssh_sends_twice_is_there_once(tmp_path: Path, mirror: Path) -> None:
    """As ssh does by itself (`retries`) when the connection broke after the server had the piece."""
    put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact())
    once = action._low_level_execute_command

    def twice(command: str, in_data: bytes, sudoable: bool) -> dict[str, Any]:
        once(command, in_data[: len(in_data) // 3], sudoable)
        return once(command, in_data, sudoable)

    action._low_level_execute_command = twice  # type: ignore[method-assign]
    assert Path(action.run()["files"]["wheel.whl"]).read_bytes() == CONTENT
    assert len(action.modules) == 2


def test_a_part_that_something_else_began_is_pushed_anew(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    part(tmp_path, artifact()).write_bytes(b"x" * 3 * MIB)
    action = fetching(tmp_path, mirror, artifact())
    assert Path(action.run()["files"]["wheel.whl"]).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"x" * len(CONTENT), CONTENT[:-1], b""])
def test_a_wrong_file_in_the_mirror_is_named(tmp_path: Path, mirror: Path, content: bytes) -> None:
    path = put(mirror, artifact(), content)
    with pytest.raises(AnsibleActionFail, match=r"not have the size and sha256 .* playbooks/mirror.yml") as caught:
        fetching(tmp_path, mirror, artifact()).run()
    assert str(path) in str(caught.value)


def test_a_server_whose_disk_is_full_is_quoted(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    part(tmp_path, artifact()).symlink_to("/dev/full")
    with pytest.raises(AnsibleActionFail, match="No space left on device"):
        fetching(tmp_path, mirror, artifact()).run()


def test_what_the_mirror_lacks_comes_from_the_upstream(tmp_path: Path, mirror: Path) -> None:
    upstream = tmp_path / "upstream"
    upstream.write_bytes(b"other")
    other = {**artifact("other", b"other"), "urls": [upstream.as_uri()]}
    put(mirror, artifact())
    result = fetching(tmp_path, mirror, artifact(), other).run()
    assert result["files"].keys() == {"wheel.whl", "other"}
    assert result["origin"]["other"] == upstream.as_uri()


def test_without_mirror_and_upstream_the_remedy_is_named(tmp_path: Path, mirror: Path) -> None:
    result = fetching(tmp_path, mirror, artifact(), upstream=False).run()
    assert result["failed"]
    assert "playbooks/mirror.yml" in result["msg"]


def test_over_a_local_connection_the_mirror_is_used_in_place(tmp_path: Path, mirror: Path) -> None:
    path = put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact())
    action.transport = "local"
    assert action.run()["files"] == {"wheel.whl": str(path)}
    assert not (tmp_path / "cache").exists()


# --- Built artifacts and git trees ------------------------------------------------------------------------------------


def test_a_built_artifact_is_pushed_as_recorded(tmp_path: Path, mirror: Path) -> None:
    folder = mirror / "built" / "abc"
    folder.mkdir(parents=True)
    (folder / "a.sh").write_bytes(b"built")
    known = {"sha256": hashlib.sha256(b"built").hexdigest(), "size": 5}
    (folder / "artifact.json").write_text(json.dumps(known))
    (mirror / "manifest.json").write_text(json.dumps({"built": [known]}))
    result = fetching(tmp_path, mirror, {"filename": "a.sh", "built": "abc"}).run()
    assert Path(result["files"]["a.sh"]).read_bytes() == b"built"


@pytest.mark.parametrize("transport", ["ssh", "local"])
def test_a_built_artifact_that_is_missing_is_one_sentence(tmp_path: Path, mirror: Path, transport: str) -> None:
    action = fetching(tmp_path, mirror, {"filename": "a.sh", "built": "abc"})
    action.transport = transport
    try:
        message = action.run()["msg"]
    except AnsibleActionFail as error:
        message = str(error)
    assert message.startswith("a.sh is built, not downloaded, and the mirror does not have it")
    assert str(mirror) in message and "playbooks/mirror.yml" in message


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """An artifact: a commit of a repository that lies on the controller."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "setup.py").write_text("pass\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return {"filename": "tree.tar", "repository": str(folder), "commit": commit, "mirrored": "tree.git"}


def test_a_tree_of_the_controller_is_exported_there_and_pushed(
    tmp_path: Path, mirror: Path, tree: dict[str, Any]
) -> None:
    action = fetching(tmp_path, mirror, tree)
    with tarfile.open(action.run()["files"]["tree.tar"]) as archive:
        assert archive.getnames() == ["setup.py"]
    assert len(action.commands) == 1


def test_the_mirrors_repository_is_asked_first(tmp_path: Path, mirror: Path, tree: dict[str, Any]) -> None:
    (mirror / "git").mkdir(parents=True)
    Path(tree["repository"]).rename(mirror / "git" / "tree.git")
    assert fetching(tmp_path, mirror, {**tree, "repository": "https://127.0.0.1:1/x"}).run()["files"]


def test_a_commit_that_the_controller_lacks_is_one_sentence(tmp_path: Path, mirror: Path, tree: dict[str, Any]) -> None:
    with pytest.raises(AnsibleActionFail, match=r"^Commit c+ could not be had\. Tried: "):
        fetching(tmp_path, mirror, {**tree, "commit": "c" * 40}).run()


# --- Progress ---------------------------------------------------------------------------------------------------------


def test_a_long_push_shows_how_far_all_files_are(tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_progress, "SHOW_EVERY", 0.0)
    entries = [artifact(), artifact("b", CONTENT[:MIB])]
    for entry, content in zip(entries, (CONTENT, CONTENT[:MIB]), strict=True):
        put(mirror, entry, content)
    part(tmp_path, entries[0]).write_bytes(CONTENT[: 2 * MIB])  # of an earlier run
    action = fetching(tmp_path, mirror, *entries)
    action.run()
    rate = r", \d+\.\d MB/s, ETA \d+ s"
    for line, expected in zip(
        action.shown,
        [
            r"\[gpu1\] pushed 2 of 4 MB \(49 %\), 0 of 2 files" + rate,
            r"\[gpu1\] pushed 3 of 4 MB \(75 %\), 1 of 2 files" + rate,
            r"\[gpu1\] pushed 4 of 4 MB \(100 %\), 2 of 2 files, in \d+ s",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line), line


def test_a_long_download_shows_how_far_all_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_progress, "SHOW_EVERY", 0.0)
    contents = {name: os.urandom(3 * MIB) for name in "ab"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    entries = [{**artifact(name, content), "urls": [(tmp_path / name).as_uri()]} for name, content in contents.items()]
    action = Action("fetch_artifacts", artifacts=entries, cache=str(tmp_path / "cache"), mirror="", parallel=1)
    looked = action._execute_module(module_args={**action.arguments, "seconds": 0})
    assert looked["received"] == 0
    answers = iter(
        [
            {**looked, "received": 0},
            {
                **looked,
                "received": 2 * MIB,
                "missing": [{**looked["missing"][0], "have": 2 * MIB}, looked["missing"][1]],
            },
            {**looked, "received": 4 * MIB, "missing": [], "files": {"a": "/a", "b": "/b"}},
        ]
    )
    action._execute_module = lambda **_arguments: next(answers)  # type: ignore[method-assign]
    action.run()
    for line, expected in zip(
        action.shown,
        [
            r"\[gpu1\] downloaded 0 of 6 MB \(0 %\), 0 of 2 files, 0.0 MB/s, no ETA",
            r"\[gpu1\] downloaded 2 of 6 MB \(33 %\), 0 of 2 files, \d+\.\d MB/s, ETA \d+ s",
            r"\[gpu1\] downloaded 6 of 6 MB \(100 %\), 2 of 2 files, in \d+ s",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line), line


def test_a_short_push_shows_nothing(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact())
    action.run()
    assert action.shown == []


def test_a_push_that_waits_for_its_turn_says_so_and_keeps_the_lease_alive(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact(), transfers=4)

    @contextlib.contextmanager
    def transfer(limit: int, waits: Callable[[float], None]) -> Iterator[None]:
        assert limit == 4
        for seconds in (0, 1, 16, 20, 32, 700, 701):
            waits(seconds)
        yield
        action.commands.append("its turn is over")

    action.plugin.transfer = transfer  # type: ignore[attr-defined]
    action.run()
    assert action.shown == [
        f"[gpu1] wheel.whl: waits for one of 4 transfers, {seconds} s so far" for seconds in (16, 32, 700)
    ]
    assert [given["artifacts"] for given in action.modules].count([]) == 1
    assert action.commands[-1] == "its turn is over"
    assert len(action.commands) > 1


def test_a_slow_push_keeps_the_lease_alive(tmp_path: Path, mirror: Path) -> None:
    put(mirror, artifact())
    action = fetching(tmp_path, mirror, artifact())
    action.plugin.IDLE = 0.0  # type: ignore[attr-defined]
    action.run()
    beats = [given for given in action.modules if given["artifacts"] == []]
    assert len(beats) == 3
    assert beats[0]["run"]["run"]
