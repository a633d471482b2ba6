"""The modules that fetch, unpack and mirror artifacts, as processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from run_module import run_module

CONTENT = b"content\n" * 1000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def artifact(name: str, *urls: str) -> dict[str, Any]:
    known = {"filename": name, "sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
    return {**known, "source": "url", "urls": urls}


def fetch(cache: Path, *artifacts: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    return run_module("fetch_artifacts", artifacts=artifacts, cache=str(cache), **arguments)


# --- fetch_artifacts --------------------------------------------------------------------------------------------------


def test_what_is_fetched_once_is_found_the_next_time(tmp_path: Path, site: tuple[Path, str]) -> None:
    folder, url = site
    (folder / "a").write_bytes(CONTENT)
    first = fetch(tmp_path / "cache", artifact("a", f"{url}/a"))
    (folder / "a").unlink()
    second = fetch(tmp_path / "cache", artifact("a", f"{url}/a"))
    assert (first["changed"], first["origin"]) == (True, {"a": f"{url}/a"})
    assert (second["changed"], second["origin"]) == (False, first["origin"])
    assert (first["received"], second["received"]) == (len(CONTENT), 0)
    assert first["files"] == second["files"]
    assert first["missing"] == second["missing"] == []


def test_without_time_it_says_what_is_missing(tmp_path: Path) -> None:
    tree = {"filename": "t.tar", "repository": "/none", "commit": "c" * 40, "mirrored": "t.git"}
    result = fetch(tmp_path / "cache", artifact("a", "http://127.0.0.1:1/"), tree, seconds=0)
    assert result["files"] == {}
    part = f"{tmp_path}/cache/sha256/{artifact('a')['sha256']}/a.part"
    assert result["missing"] == [{**artifact("a"), "urls": ["http://127.0.0.1:1/"], "part": part, "have": 0}, tree]


def test_what_an_earlier_slice_verified_is_not_read_again(tmp_path: Path) -> None:
    result = fetch(tmp_path / "cache", artifact("a", "http://127.0.0.1:1/"), verified={"a": "/somewhere/a"})
    assert (result["files"], result["changed"]) == ({"a": "/somewhere/a"}, False)


def test_what_cannot_be_fetched_is_one_sentence(tmp_path: Path) -> None:
    message = fetch(tmp_path / "cache", artifact("a", "http://127.0.0.1:1/a"))["msg"]
    assert message.startswith("a could not be fetched. Tried: http://127.0.0.1:1/a: ")


class Together(Quiet):
    """Answers when `barrier.parties` requests wait."""

    barrier: threading.Barrier

    def do_GET(self) -> None:
        self.barrier.wait()
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)


@pytest.mark.parametrize(("parallel", "together"), [(3, True), (2, False)])
def test_as_many_files_as_the_knob_says_are_fetched_at_the_same_time(
    tmp_path: Path, parallel: int, together: bool
) -> None:
    handler = type("Handler", (Together,), {"barrier": threading.Barrier(3, timeout=60 if together else 1)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the broken barrier
        entries = [artifact(name, f"http://127.0.0.1:{server.server_port}/{name}") for name in "abc"]
        result = fetch(tmp_path / "cache", *entries, parallel=parallel)
        server.shutdown()
    assert (result.get("files", {}).keys() == {"a", "b", "c"}) is together


def test_what_cannot_be_had_is_named_after_the_rest_was_fetched(tmp_path: Path, site: tuple[Path, str]) -> None:
    folder, url = site
    (folder / "b").write_bytes(CONTENT)
    entries = [artifact(name, f"{url}/{name}") for name in "abc"]
    message = fetch(tmp_path / "cache", *entries)["msg"]
    assert message.startswith("2 files could not be had. a could not be fetched. Tried: ")
    assert "c could not be fetched. Tried: " in message
    assert message.count("playbooks/mirror.yml") == 1
    assert [path.name for path in (tmp_path / "cache").rglob("b")] == ["b"]


def test_a_failure_waits_for_what_still_comes(tmp_path: Path, site: tuple[Path, str]) -> None:
    """So that a person who repairs one source does not find the next broken one in the next run only."""
    entries = [artifact(name, f"{site[1]}/{name}") for name in "ab"]
    first = fetch(tmp_path / "cache", *entries, errors={"a": "a is broken."}, seconds=0)
    assert (first["errors"], [item["filename"] for item in first["missing"]]) == ({"a": "a is broken."}, ["b"])
    last = fetch(tmp_path / "cache", *entries, errors=first["errors"])
    assert last["msg"].startswith("2 files could not be had. a is broken. b could not be fetched.")


def test_without_a_network_not_every_file_is_waited_for(tmp_path: Path) -> None:
    entries = [artifact(str(number), f"http://127.0.0.1:1/{number}") for number in range(10)]
    errors = {str(number): f"{number} is lost." for number in range(8)}
    message = fetch(tmp_path / "cache", *entries, errors=errors, seconds=0)["msg"]
    assert message.startswith("8 files could not be had. 0 is lost. 1 is lost.")
    assert message.endswith("2 more were not tried to the end.")


def test_no_upstream_is_asked_when_that_is_forbidden(tmp_path: Path, site: tuple[Path, str]) -> None:
    (site[0] / "a").write_bytes(CONTENT)
    message = fetch(tmp_path / "cache", artifact("a", f"{site[1]}/a"), upstream=False)["msg"]
    assert "stack_upstream is false" in message


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    message = fetch(tmp_path / "cache", artifact("a", "http://127.0.0.1:1/a"))["msg"]
    assert message.startswith(f"Artifacts cannot be kept in {tmp_path}/cache: ")


def test_fetching_keeps_the_runs_leases_alive(tmp_path: Path) -> None:
    import socket

    run = {"run": "this run"}
    for name, holder in (("mine", {**run, "server": socket.gethostname()}), ("other", {"run": "another"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(holder))
        os.utime(tmp_path / f"{name}.json", (0, 0))
    fetch(tmp_path / "cache", run=run, leases=str(tmp_path), seconds=0)
    assert (tmp_path / "mine.json").stat().st_mtime > 0
    assert (tmp_path / "other.json").stat().st_mtime == 0


# --- Git trees --------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A work tree with one commit; (folder, commit id)."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "setup.py").write_text("pass\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return folder, commit


def tree_of(repository: Path, commit: str) -> dict[str, Any]:
    return {"filename": "tree.tar", "repository": str(repository), "commit": commit, "mirrored": "tree.git"}


def test_a_git_tree_is_exported_from_the_mirror_first(tmp_path: Path, repository: tuple[Path, str]) -> None:
    mirrored = tmp_path / "mirror" / "git" / "tree.git"
    mirrored.parent.mkdir(parents=True)
    repository[0].rename(mirrored)
    result = fetch(tmp_path / "cache", tree_of(Path("/none"), repository[1]), mirror=str(tmp_path / "mirror"))
    with tarfile.open(result["files"]["tree.tar"]) as archive:
        assert archive.getnames() == ["setup.py"]
    assert result["origin"] == {"tree.tar": str(mirrored)}


def test_a_commit_that_nobody_has_is_one_sentence(tmp_path: Path, repository: tuple[Path, str]) -> None:
    message = fetch(tmp_path / "cache", tree_of(repository[0], "c" * 40))["msg"]
    assert message.startswith(f"Commit {'c' * 40} could not be had. Tried: {repository[0]}: ")


# --- unpack_archive ---------------------------------------------------------------------------------------------------


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(__file__, "lib/x.py")
        archive.add(__file__, "lib/y.py")
    arguments: dict[str, Any] = {"src": str(tmp_path / "a.tar"), "dest": str(tmp_path / "out")}
    result = run_module("unpack_archive", **arguments, members=["*/x.py"], flatten=True)
    assert (result["changed"], result["files"]) == (True, 1)
    assert os.listdir(tmp_path / "out") == ["x.py"]


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_what_is_no_archive_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "a.tar").write_bytes(content)
    message = run_module("unpack_archive", src=str(tmp_path / "a.tar"), dest=str(tmp_path / "out"))["msg"]
    assert str(tmp_path / "a.tar") in message
    assert not (tmp_path / "out").exists()


# --- mirror_built -----------------------------------------------------------------------------------------------------

RECIPE = """\
import argparse, json, pathlib, sys
options = argparse.ArgumentParser()
for name in ("--inputs", "--output", "--work"):
    options.add_argument(name, type=pathlib.Path)
given = options.parse_args()
inputs = json.loads(given.inputs.read_text())
if "broken" in inputs:
    sys.exit("The input broken is broken.")
(given.work / "scratch").touch()
given.output.write_text("built from " + ", ".join(inputs))
"""


def built(tmp_path: Path, **inputs: str) -> dict[str, Any]:
    (tmp_path / "build.py").write_text(RECIPE)
    arguments: dict[str, Any] = {
        "folder": str(tmp_path / "built/key"),
        "filename": "a.sh",
        "program": str(tmp_path / "build.py"),
        "manifest": str(tmp_path / "manifest.json"),
    }
    return run_module("mirror_built", **arguments, inputs=inputs, record={"recipe": "a"})


def test_an_artifact_is_built_once(tmp_path: Path) -> None:
    first, second = built(tmp_path, x="/x"), built(tmp_path, x="/x")
    assert (first["changed"], second["changed"]) == (True, False)
    content = (tmp_path / "built/key/a.sh").read_bytes()
    expected = {"recipe": "a", "filename": "a.sh", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    assert first["record"] == second["record"] == expected
    assert sorted(os.listdir(tmp_path / "built/key")) == ["a.sh", "artifact.json"]


@pytest.mark.parametrize("name", ["a.sh", "artifact.json"])
def test_a_damaged_artifact_is_built_again(tmp_path: Path, name: str) -> None:
    record = built(tmp_path, x="/x")["record"]
    os.truncate(tmp_path / "built/key" / name, 3)
    assert built(tmp_path, x="/x")["record"] == record


def test_an_artifact_that_was_changed_together_with_its_record_is_built_again(tmp_path: Path) -> None:
    record = built(tmp_path, x="/x")["record"]
    (tmp_path / "manifest.json").write_text(json.dumps({"built": [{**record, "folder": "key"}]}))
    (tmp_path / "built/key/a.sh").write_bytes(b"evil")
    evil = {**record, "sha256": hashlib.sha256(b"evil").hexdigest(), "size": 4}
    (tmp_path / "built/key/artifact.json").write_text(json.dumps(evil))
    again = built(tmp_path, x="/x")
    assert (again["changed"], again["record"]) == (True, record)
    assert not built(tmp_path, x="/x")["changed"]


def test_a_recipe_that_fails_is_quoted(tmp_path: Path) -> None:
    assert built(tmp_path, broken="/x")["msg"] == "a.sh could not be built: The input broken is broken."
    assert not (tmp_path / "built/key/artifact.json").exists()


# --- mirror_repository ------------------------------------------------------------------------------------------------


def mirrored(
    tmp_path: Path, address: Path | str, commit: str, instead: str = "exit 1", **options: Any
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "path": str(tmp_path / "m/tree.git"),
        "otherwise_path": str(tmp_path / "m/instead.git"),
    }
    otherwise = ["sh", "-c", instead, "sh"]
    repository: dict[str, Any] = {"repository": str(address), "commit": commit}
    given = {**arguments, **repository, "otherwise": otherwise, "timeout": 5, **options}
    return run_module("mirror_repository", **given)


def test_a_repository_is_not_asked_where_upstreams_are_left_out(tmp_path: Path, repository: tuple[Path, str]) -> None:
    instead = 'mkdir "$1"; echo dddd'
    record = mirrored(tmp_path, repository[0].as_uri(), repository[1], instead, upstream=False)["record"]
    assert (record["commit"], record["why"]) == ("dddd", "mirror_sources leaves upstreams out")
    assert not (tmp_path / "m/tree.git").exists()


def test_nothing_stands_in_where_registries_are_left_out(tmp_path: Path) -> None:
    message = mirrored(tmp_path, "/none", "c" * 40, otherwise=[])["msg"]
    assert message.startswith(f"/none did not give commit {'c' * 40} (")
    assert "mirror_sources allows nothing in its place" in message


def test_a_commit_is_mirrored_once_and_can_be_exported(tmp_path: Path, repository: tuple[Path, str]) -> None:
    upstream, commit = repository
    first, second = mirrored(tmp_path, upstream.as_uri(), commit), mirrored(tmp_path, "/none", commit)
    assert (first["changed"], second["changed"]) == (True, False)
    record = {"path": str(tmp_path / "m/tree.git"), "commit": commit, "upstream": True, "why": ""}
    record["origin"] = upstream.as_uri()
    assert first["record"] == second["record"] == record
    assert fetch(tmp_path / "cache", tree_of(tmp_path / "m/tree.git", commit))["files"]


def test_where_the_upstream_does_not_answer_something_stands_in_and_says_why(tmp_path: Path) -> None:
    result = mirrored(tmp_path, "/none", "c" * 40, 'mkdir "$1"; echo making it; echo dddd')
    assert result["changed"]
    record = result["record"]
    assert (record["path"], record["commit"], record["upstream"]) == (str(tmp_path / "m/instead.git"), "dddd", False)
    assert "does not appear to be a git repository" in record["why"]


@pytest.mark.parametrize("instead", ["echo no space >&2; exit 1", "true"])
def test_nothing_to_stand_in_is_one_sentence_without_secrets(tmp_path: Path, instead: str) -> None:
    message = mirrored(tmp_path, "http://me:s3cret@127.0.0.1:1/x", "c" * 40, instead)["msg"]
    assert message.startswith("http://127.0.0.1:1/x did not answer (")
    assert "s3cret" not in message
