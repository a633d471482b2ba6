"""What a mirror says of itself, and that nothing which was altered in it is used or stays unnoticed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from ansible.errors import AnsibleActionFail
from ansible.module_utils.mirror_manifest import UNKNOWN, merged
from ansible.module_utils.stack_installs import built_key
from run_module import run_module

CONTENT = b"a wheel"
SUM = hashlib.sha256(CONTENT).hexdigest()
FILE = {"filename": "a.whl", "sha256": SUM, "size": len(CONTENT), "licence": "MIT", "source": "pypi", "project": "a"}
RECIPE = {"name": "channel", "version": 1, "inputs": [FILE], "filename": "channel.tar"}
KEY = built_key(RECIPE)
PACKAGE, REPODATA = b"a conda package", json.dumps({"packages": {"a.tar.bz2": {"md5": "1"}}}).encode()


def channel(path: Path, package: bytes = PACKAGE, repodata: bytes = REPODATA) -> None:
    """A conda channel as one tar."""
    with tarfile.open(path, "w") as archive:
        for name, data in {"linux-64/repodata.json": repodata, "linux-64/a.tar.bz2": package}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(mirror: Path, stack: str = "mine", origin: str = "https://index.example/a.whl") -> dict[str, Any]:
    built = {"record": json.loads((mirror / f"built/{KEY}/artifact.json").read_text()), "folder": f"/x/{KEY}"}
    [(commit, path)] = [(line, mirror / "git/tree.git") for line in (mirror / "commit").read_text().split()]
    git = {"path": str(path), "commit": commit, "upstream": True, "why": "", "origin": "https://git.example/tree"}
    given: dict[str, Any] = {"files": [FILE], "origin": {"a.whl": origin}, "built": [built], "git": [git]}
    return run_module("mirror_manifest", path=str(mirror), stack=stack, **given)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror with one fetched file, one built channel and one repository."""
    folder = tmp_path / "mirror"
    for path in (f"sha256/{SUM}", f"built/{KEY}"):
        (folder / path).mkdir(parents=True)
    (folder / f"sha256/{SUM}/a.whl").write_bytes(CONTENT)
    tar = folder / f"built/{KEY}/channel.tar"
    channel(tar)
    record = {"recipe": "channel", "version": 1, "inputs": {"a.whl": SUM}, "filename": "channel.tar"}
    record |= {"sha256": sha256(tar), "size": tar.stat().st_size}
    (folder / f"built/{KEY}/artifact.json").write_text(json.dumps(record))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "setup.py").write_text("pass\n")
    git = ["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@example"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", tree, folder / "git/tree.git"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True).stdout
    (folder / "commit").write_bytes(commit)
    write_manifest(folder)
    return folder


# --- The manifest -----------------------------------------------------------------------------------------------------


def test_it_says_what_is_there_where_from_and_for_which_stack(mirror: Path) -> None:
    [file], [built], [tree] = (write_manifest(mirror)["manifest"][kind] for kind in ("files", "built", "git"))
    known = {key: FILE[key] for key in ("filename", "sha256", "size", "licence")}
    assert file == {**known, "origin": "https://index.example/a.whl", "stacks": ["mine"]}
    assert (built["folder"], built["inputs"], built["stacks"]) == (KEY, {"a.whl": SUM}, ["mine"])
    assert (tree["path"], tree["origin"]) == ("git/tree.git", "https://git.example/tree")


def test_a_second_run_writes_nothing_and_loses_no_origin(mirror: Path) -> None:
    before = (mirror / "manifest.json").stat()
    for origin in ("https://index.example/a.whl", "cache"):
        assert not write_manifest(mirror, origin=origin)["changed"]
    after = (mirror / "manifest.json").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_an_origin_that_nobody_wrote_down_is_called_so(mirror: Path) -> None:
    (mirror / "manifest.json").unlink()
    [file] = write_manifest(mirror, origin="cache")["manifest"]["files"]
    assert file["origin"] == UNKNOWN


def test_another_stack_is_added_and_nothing_is_there_twice(mirror: Path) -> None:
    manifest = write_manifest(mirror, stack="theirs", origin="cache")["manifest"]
    for kind in ("files", "built", "git"):
        assert [entry["stacks"] for entry in manifest[kind]] == [["mine", "theirs"]]
    assert manifest["files"][0]["origin"] == "https://index.example/a.whl"


@pytest.mark.parametrize("there", [True, False])
def test_what_no_stack_needs_any_more_is_listed_while_it_is_there(there: bool) -> None:
    nothing: dict[str, list[dict[str, Any]]] = {"files": [], "built": [], "git": []}
    old = nothing | {"files": [{**FILE, "origin": "x", "stacks": ["mine"]}]}
    manifest = merged(old, "mine", nothing, lambda _path: there)
    assert [entry["stacks"] for entry in manifest["files"]] == ([[]] if there else [])


# --- Verifying --------------------------------------------------------------------------------------------------------


def verify(mirror: Path) -> str:
    """What the check says, of a mirror that it leaves as it was."""
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in mirror.rglob("*"))
    try:
        return str(Action("mirror_verify", path=str(mirror)).run()["msg"])
    except AnsibleActionFail as error:
        return str(error)
    finally:
        assert sorted((str(path), path.lstat().st_mtime_ns) for path in mirror.rglob("*")) == before


def test_a_whole_mirror_is_said_to_be_whole(mirror: Path) -> None:
    (mirror / f"sha256/{SUM}/b.whl.part").write_text("half")  # a download that will go on
    assert verify(mirror).startswith(
        f"{mirror} is as it was filled: 2 files, 0 MB, 1 of them built here; 1 commits of "
    )


def flip(path: Path) -> None:
    """Alter one byte, and neither size nor time."""
    info, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def edit_record(mirror: Path, **fields: Any) -> None:
    path = mirror / f"built/{KEY}/artifact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def swap_package(mirror: Path) -> None:
    channel(mirror / f"built/{KEY}/channel.tar", package=b"a cond4 package")


def edit_repodata(mirror: Path) -> None:
    channel(mirror / f"built/{KEY}/channel.tar", repodata=REPODATA.replace(b"1", b"2"))


def swap_package_and_record(mirror: Path) -> None:
    swap_package(mirror)
    edit_record(mirror, sha256=sha256(mirror / f"built/{KEY}/channel.tar"))


def lose_an_object(mirror: Path) -> None:
    [*_, last] = sorted(path for path in (mirror / "git/tree.git/objects").glob("??/*") if path.is_file())
    last.unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda mirror: flip(mirror / f"sha256/{SUM}/a.whl"), f"sha256/{SUM}/a.whl has the sha256 "),
        (lambda mirror: (mirror / f"sha256/{SUM}/a.whl").unlink(), f"sha256/{SUM}/a.whl is missing."),
        (lambda mirror: (mirror / f"built/{KEY}/channel.tar").unlink(), f"built/{KEY}/channel.tar is missing."),
        (lambda mirror: (mirror / f"built/{KEY}/artifact.json").unlink(), f"built/{KEY} has no artifact.json"),
        (swap_package, f"built/{KEY}/channel.tar has the sha256 "),
        (edit_repodata, f"built/{KEY}/channel.tar has the sha256 "),
        (swap_package_and_record, f"built/{KEY}/artifact.json is not what manifest.json says"),
        (lambda mirror: edit_record(mirror, version=2), f"built/{KEY}/artifact.json names another recipe"),
        (lambda mirror: edit_record(mirror, inputs={"a.whl": "b" * 64}), "or other inputs, than its folder is for"),
        (lose_an_object, "git/tree.git is damaged (remove that folder): "),
        (lambda mirror: (mirror / "git/tree.git").rename(mirror / "git/x.git"), "git/tree.git is missing."),
        (lambda mirror: (mirror / "manifest.json").unlink(), "is no mirror: it has no manifest.json"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(mirror: Path, damage: Callable[[Path], None], named: str) -> None:
    damage(mirror)
    said = verify(mirror)
    assert named in said and "git failed" not in said
    assert "`ansible-playbook playbooks/mirror.yml`" in said


# --- Nothing that was altered is used ---------------------------------------------------------------------------------


@pytest.fixture
def served(mirror: Path) -> Iterator[str]:
    """Address of the mirror on a plain web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            """Nothing on the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(tmp_path: Path, mirror: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """What becomes of the channel on a server."""
    artifact = {"filename": recipe["filename"], "built": built_key(recipe)}
    action = Action("fetch_artifacts", artifacts=[artifact], cache=str(tmp_path / "cache"), mirror=mirror)
    try:
        return action.run()
    except AnsibleActionFail as error:
        return {"msg": str(error)}


ways = pytest.mark.parametrize("way", ["{served}", "{mirror}", "controller:{mirror}"])


@ways
def test_a_built_channel_reaches_a_server_served_shared_or_pushed(
    tmp_path: Path, mirror: Path, served: str, way: str
) -> None:
    result = fetch(tmp_path, way.format(served=served, mirror=mirror), RECIPE)
    assert sha256(Path(result["files"]["channel.tar"])) == sha256(mirror / f"built/{KEY}/channel.tar")


@ways
@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (swap_package, "sha256"),
        (edit_repodata, "sha256"),
        (swap_package_and_record, "artifact.json is not what manifest.json of the mirror says of channel.tar"),
        (lambda mirror: edit_record(mirror, sha256="b" * 64), "artifact.json is not what manifest.json"),
        (lambda mirror: edit_record(mirror, inputs={}), "artifact.json is not what manifest.json"),
    ],
)
def test_what_was_altered_in_the_mirror_never_gets_to_a_server(
    tmp_path: Path, mirror: Path, served: str, way: str, tamper: Callable[[Path], None], named: str
) -> None:
    tamper(mirror)
    result = fetch(tmp_path, way.format(served=served, mirror=mirror), RECIPE)
    assert named in result["msg"]
    assert "playbooks/mirror.yml" in result["msg"]
    assert not list((tmp_path / "cache").rglob("channel.tar"))


@ways
def test_another_sum_of_an_input_in_the_lock_finds_nothing_built(
    tmp_path: Path, mirror: Path, served: str, way: str
) -> None:
    other = {**RECIPE, "inputs": [{**FILE, "sha256": "b" * 64}]}
    message = fetch(tmp_path, way.format(served=served, mirror=mirror), other)["msg"]
    assert message.startswith("channel.tar is built, not downloaded, and the mirror does not have it for this recipe")
