"""A Python for servers without one: the program for their shell, the action plugin, the module, and the lock."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from action_plugin import Action
from ansible.errors import AnsibleActionFail
from ansible.module_utils.stack_installs import built_key, claim, install_state, owner_of, read_json, remove_tree
from run_module import run_module

ROOT = Path(__file__).resolve().parents[2]
SHELLS = [shell for shell in ("sh", "dash", "bash", "ksh", "busybox") if shutil.which(shell)]
VERSION = ".".join(map(str, sys.version_info[:3]))
LOCK = yaml.safe_load((ROOT / "roles/bootstrap/vars/main.yml").read_text())["__bootstrap_pythons"]


def archive(program: str = f'#!/bin/sh\nexec {sys.executable} "$@"\n') -> bytes:
    """A Python to unpack: this one, under another name. Bigger than a piece of a push."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in {"bin/python3": program.encode(), "lib/noise": os.urandom(3 << 20), "lib/x.py": b""}.items():
            member = tarfile.TarInfo(f"python/{name}")
            member.size, member.mode = len(text), 0o755
            tar.addfile(member, io.BytesIO(text))
    return raw.getvalue()


ARCHIVE = archive()

# All that a server needs, beside what downloads.
TOOLS = (
    *(
        "sh",
        "cat",
        "cp",
        "cut",
        "dd",
        "dirname",
        "getconf",
        "grep",
        "gzip",
        "ls",
        "mkdir",
        "mv",
        "rm",
        "sed",
        "sha256sum",
    ),
    *("tail", "tar", "uname"),
)


class Quiet(SimpleHTTPRequestHandler):
    """A web server's side of a mirror, without its log."""

    def log_message(self, *_words: object) -> None: ...


class Lab:
    """A home, a mirror, and a task of role bootstrap."""

    def __init__(self, folder: Path) -> None:
        self.home, self.mirror = folder / "home", folder / "mirror"
        self.home.mkdir()
        self.prefix = self.home / "stacks/mine"
        self.python: dict[str, Any] = {"version": VERSION, "glibc_min": "2.2", "archive": self.locked(ARCHIVE)}

    def locked(self, content: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(content).hexdigest()
        return {"filename": "python3.tar.gz", "source": "url", "urls": [], "sha256": sha256, "size": None}

    def put(self, content: bytes = ARCHIVE) -> Path:
        """Put the archive, or what stands in its place, into the mirror."""
        path: Path = self.mirror / "sha256" / self.python["archive"]["sha256"] / "python3.tar.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def task(self, **changes: Any) -> Action:
        given = {
            "prefix": str(self.prefix),
            "stack": "mine",
            "pythons": {"one": self.python},
            "prefer": ["one"],
            "mirror": f"controller:{self.mirror}",
            "upstream": True,
            "deep": False,
            "repair": True,
            "claim": True,
        }
        return Action("bootstrap_python", **{**given, **changes})

    def written(self) -> list[str]:
        """All that lies in the home."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))

    def installed(self) -> Path:
        [path] = (self.prefix / "var/python3").iterdir()
        return path


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(tmp_path)
    monkeypatch.setenv("HOME", str(made.home))
    return made


def refused(task: Action, *sentences: str, **options: bool) -> None:
    with pytest.raises(AnsibleActionFail) as caught:
        task.run(**options)
    for sentence in sentences:
        assert sentence in str(caught.value)


# --- What a run does --------------------------------------------------------------------------------------------------


def test_a_python_is_there_after_a_run_and_stays_as_it_is(lab: Lab) -> None:
    lab.put()
    first = lab.task().run()
    assert first["changed"]
    assert first["python"] == str(lab.installed() / "bin/python3")
    assert lab.installed().name == f"{VERSION}-{lab.python['archive']['sha256'][:12]}"
    assert install_state(str(lab.installed()), deep=True)["state"] == "present"
    assert subprocess.check_output([first["python"], "-c", "print(6 * 7)"]) == b"42\n"
    assert list(lab.prefix.glob("var/tmp/*/*")) == []
    before = lab.written()
    task = lab.task()
    second = task.run()
    assert (second["changed"], second["python"]) == (False, first["python"])
    assert (len(task.commands), task.modules) == (1, [])
    assert lab.written() == before


def test_the_prefix_is_the_stacks_own_then(lab: Lab) -> None:
    lab.put()
    lab.task().run()
    assert owner_of(str(lab.prefix)) == "mine"
    ours = read_json(str(lab.prefix / ".stack.json"))
    assert ours["made"] == [str(lab.prefix), str(lab.prefix.parent)]
    shutil.copy(lab.prefix / ".stack.json", lab.home / "marker")
    remove_tree(str(lab.prefix.parent))
    claim(str(lab.prefix), "mine")
    assert (lab.prefix / ".stack.json").read_text() == (lab.home / "marker").read_text()


@pytest.mark.parametrize("prefix", ["~/stacks/mine", "$HOME/stacks/mine"])
def test_a_home_is_written_as_in_the_inventory(lab: Lab, prefix: str) -> None:
    lab.put()
    assert lab.task(prefix=prefix).run()["python"].startswith(f"{lab.prefix}/var/python3/")


def test_it_works_under_a_narrow_umask(lab: Lab) -> None:
    lab.put()
    before = os.umask(0o077)
    try:
        assert lab.task().run()["changed"]
        assert not lab.task().run()["changed"]
    finally:
        os.umask(before)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_server_takes_it_from_a_mirror_that_it_sees(lab: Lab, scheme: str) -> None:
    lab.put()
    task = lab.task(mirror=f"{scheme}{lab.mirror}")
    assert task.run()["changed"]
    assert not any(command.startswith("dd ") for command in task.commands)


@pytest.mark.parametrize("program", [program for program in ("curl", "wget") if shutil.which(program)])
def test_a_server_downloads_it_with_what_it_has(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    lab.put()
    few = tmp_path / "bin"
    few.mkdir()
    for name in (program, *TOOLS):
        (few / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(few))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(lab.mirror))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        refused(lab.task(mirror=f"{address}/nowhere"), f"python3.tar.gz could not be had: {address}/nowhere/sha256/")
        assert lab.task(mirror=address).run()["changed"]
        server.shutdown()


def test_a_server_that_cannot_download_says_so(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tmp_path / "bin"
    few.mkdir()
    for name in TOOLS:
        (few / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(few))
    refused(
        lab.task(mirror="http://alice:secret@127.0.0.1:1"), "http://127.0.0.1:1/", "neither curl nor wget is on this"
    )


@pytest.mark.parametrize("kind", ["controller:", "", "file://"])
def test_one_that_the_mirror_built_is_verified_by_its_record(lab: Lab, kind: str) -> None:
    built = {"name": "python3", "version": 1, "filename": "python3.tar.gz", "inputs": []}
    folder = lab.mirror / "built" / built_key(built)
    folder.mkdir(parents=True)
    (folder / "python3.tar.gz").write_bytes(ARCHIVE)
    record = {"sha256": hashlib.sha256(ARCHIVE).hexdigest(), "size": 1}
    (folder / "artifact.json").write_text(json.dumps(record))
    (lab.mirror / "manifest.json").write_text(json.dumps({"built": [{**record, "folder": folder.name}]}))
    lab.python["archive"] = built
    assert lab.task(mirror=f"{kind}{lab.mirror}").run()["changed"]
    (folder / "artifact.json").unlink()
    remove_tree(str(lab.prefix))
    refused(lab.task(mirror=f"{kind}{lab.mirror}"), "Build it: `ansible-playbook playbooks/mirror.yml`")


def test_what_the_mirror_lacks_comes_from_the_upstream_where_that_is_allowed(lab: Lab, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    upstream.write_bytes(ARCHIVE)
    lab.python["archive"]["urls"] = [f"file://{tmp_path}/not-there", f"file://{upstream}"]
    refused(lab.task(upstream=False), "python3.tar.gz could not be had: no mirror has it, no upstream may be asked")
    assert lab.task().run()["changed"]


def test_the_second_python_is_taken_where_the_first_cannot_run_or_be_had(lab: Lab) -> None:
    lab.put()
    pythons = {"new": {**lab.python, "glibc_min": "99.1"}, "old": lab.python}
    assert lab.task(pythons=pythons, prefer=["new", "old"]).run()["changed"]
    remove_tree(str(lab.prefix))
    lacking = {**lab.python, "version": "3.9.0", "archive": lab.locked(b"not in the mirror")}
    result = lab.task(pythons={"lacking": lacking, "there": lab.python}, prefer=["lacking", "there"]).run()
    assert result["python"] == str(lab.installed() / "bin/python3")
    assert lab.installed().name.startswith(VERSION)


def test_check_mode_says_what_would_be_put_there_and_writes_nothing(lab: Lab) -> None:
    lab.put()
    result = lab.task().run(check=True)
    assert (result["changed"], result["python"]) == (True, "")
    assert f"Would put Python {VERSION} into {lab.prefix}/var/python3/" in result["msg"]
    assert lab.written() == []


def test_only_site_yml_makes_a_prefix(lab: Lab) -> None:
    lab.put()
    result = lab.task(claim=False).run()
    assert (result["changed"], result["python"]) == (False, "")
    assert f"Nothing is installed in {lab.prefix}" in result["msg"]
    assert lab.written() == []
    claim(str(lab.prefix), "mine")
    assert lab.task(claim=False).run()["changed"]


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [ARCHIVE[:-1] + b"x", ARCHIVE[:1000], b"", archive("#!/bin/sh\n")])
def test_bytes_with_another_sum_are_never_unpacked(lab: Lab, content: bytes) -> None:
    path = lab.put(content)
    refused(lab.task(), "does not have the sha256", "playbooks/mirror.yml")
    assert not list(lab.prefix.glob("var/tmp/*/*/python")) and not list(lab.prefix.glob("var/python3/*"))
    refused(lab.task(mirror=str(lab.mirror)), f"{path}: its bytes do not have the locked sha256")
    lab.put()
    assert lab.task().run()["changed"]


def test_a_push_that_breaks_off_is_no_python_and_the_next_run_makes_one(lab: Lab) -> None:
    lab.put()
    task = lab.task()
    task.cut_command = 3  # look, begin, push
    refused(task, "could not be pushed: the connection broke.", "run the same command again")
    assert os.listdir(lab.prefix / "var/python3") == []
    assert lab.task().run()["changed"]


@pytest.mark.parametrize("verb", [1, 2, 4])
def test_whatever_call_breaks_the_next_run_makes_it_good(lab: Lab, verb: int) -> None:
    lab.put()
    task = lab.task()
    task.cut_command = verb
    with pytest.raises((AnsibleActionFail, subprocess.CalledProcessError)):
        task.run()
    assert not list(lab.prefix.glob("var/python3/*"))
    assert lab.task().run()["changed"]
    assert not lab.task().run()["changed"]


def test_one_that_does_not_start_is_not_published(lab: Lab) -> None:
    broken = archive("#!/nowhere/python3\n")
    lab.python["archive"] = lab.locked(broken)
    lab.put(broken)
    refused(lab.task(), "python3.tar.gz could not be unpacked on the server: it does not start:")
    assert os.listdir(lab.prefix / "var/python3") == []


def test_one_of_another_version_than_the_lock_says_is_not_published(lab: Lab) -> None:
    lab.put()
    lab.python["version"] = "3.9.99"
    refused(lab.task(), f"holds Python {VERSION}: correct its version in the lock")
    assert os.listdir(lab.prefix / "var/python3") == []


DAMAGE = {
    "a file is missing": lambda path: (path / "lib/noise").unlink(),
    "the interpreter is missing": lambda path: (path / "bin/python3").unlink(),
    "a file was cut": lambda path: os.truncate(path / "lib/noise", 5),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "never finished": lambda path: (path / "receipt.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_one_is_replaced(lab: Lab, damage: Any) -> None:
    lab.put()
    lab.task().run()
    for folder in (lab.installed(), lab.installed() / "lib", lab.installed() / "bin"):
        folder.chmod(0o755)
    damage(lab.installed())
    assert lab.task().run()["changed"]
    assert install_state(str(lab.installed()), deep=True)["state"] == "present"
    assert list(lab.prefix.glob("var/tmp/*/*")) == []


def test_one_with_other_contents_is_found_by_verify_and_named(lab: Lab) -> None:
    lab.put()
    lab.task().run()
    noise = lab.installed() / "lib/noise"
    times = noise.stat()
    noise.chmod(0o644)
    noise.write_bytes(os.urandom(times.st_size))
    noise.chmod(times.st_mode)
    os.utime(noise, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not lab.task().run()["changed"]
    refused(lab.task(deep=True, repair=False), "is damaged: lib/noise has other content", "-e", "stack_deep=true")
    assert lab.task(deep=True).run()["changed"]


def test_the_first_of_two_servers_wins(lab: Lab) -> None:
    """As on a home that they share: both bring one, both look at the end whether one is there."""
    lab.put()
    lab.task().run()
    inode = lab.installed().stat().st_ino
    draft = lab.prefix / "var/tmp/gpu1/python3-0"
    (draft / "python/bin").mkdir(parents=True)
    (draft / "python/bin/python3").write_text("the other's")
    given: dict[str, Any] = {
        "prefix": str(lab.prefix),
        "folder": lab.installed().name,
        "draft": str(draft),
        "facts": {},
    }
    result = run_module("bootstrap_python", **given)
    assert (result["changed"], result["python"]) == (False, str(lab.installed() / "bin/python3"))
    assert lab.installed().stat().st_ino == inode
    assert list(lab.prefix.glob("var/tmp/*/*")) == []


def test_a_prefix_of_somebody_else_is_left_alone(lab: Lab) -> None:
    lab.put()
    refused(lab.task(prefix="stacks"), "stack_prefix is 'stacks': give a full path")
    lab.prefix.parent.mkdir()
    lab.prefix.write_text("")
    refused(lab.task(), f"{lab.prefix} is not a folder.")
    lab.prefix.unlink()
    (lab.prefix / "thesis").mkdir(parents=True)
    refused(lab.task(), "is not empty and was not made by this project")
    assert lab.written() == ["stacks", "stacks/mine", "stacks/mine/thesis"]
    (lab.prefix / "thesis").rmdir()
    claim(str(lab.prefix), "theirs")
    refused(lab.task(), "belongs to stack theirs, not mine")


def test_what_a_killed_run_left_before_the_marker_is_no_obstacle(lab: Lab) -> None:
    lab.put()
    (lab.prefix / "var/tmp").mkdir(parents=True)
    (lab.prefix / ".stack.json.17.new").write_text("{")
    (lab.prefix / ".stack.json").write_text("")
    assert lab.task().run()["changed"]


def test_a_server_that_cannot_take_any_is_told_why(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {**lab.python, "glibc_min": "99.1"}
    refused(lab.task(pythons={"one": old}), "one needs glibc 99.1", "Set ansible_python_interpreter")
    refused(lab.task(prefer=["two"]), "bootstrap_from names two: give one or more of one.")
    few = tmp_path / "bin"
    few.mkdir()
    for name in set(TOOLS) - {"gzip", "sha256sum"}:
        (few / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(few))
    refused(lab.task(), "The server lacks gzip, sha256sum, without which no Python can be put there.")
    assert lab.written() == []


# --- The shell's part -------------------------------------------------------------------------------------------------


def asked(shell: str, *words: str) -> list[tuple[str, str]]:
    """What a shell answers to a verb of the program."""
    plugin = Action("bootstrap_python").plugin
    command = [str(shutil.which(shell)), *(["sh"] if shell == "busybox" else []), "-s"]
    done = subprocess.run(command, input=plugin.program(*words), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    answers: list[tuple[str, str]] = plugin.answer(done.stdout.decode())
    return answers


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_does_the_same(shell: str, lab: Lab) -> None:
    path = lab.put()
    sha256 = hashlib.sha256(ARCHIVE).hexdigest()
    prefix, draft = lab.home / "it's my $(touch x) prefix", lab.home / "it's my $(touch x) prefix/var/tmp/a"
    looked = asked(shell, "look", str(prefix), "", "3.9.2-0")
    assert [entry for entry in looked if entry[0] in ("prefix", "made", "absent", "owner", "foreign")] == [
        ("prefix", str(prefix)),
        ("made", str(prefix)),
        ("absent", "3.9.2-0"),
    ]
    assert dict(looked)["glibc"] == (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1]
    assert asked(shell, "begin", str(prefix), '{\n "stack": "mine"\n}', str(draft)) == []
    assert ("owner", "mine") in asked(shell, "look", str(prefix), "")
    said = asked(shell, "fetch", str(draft), sha256, f"{lab.home}/nowhere", str(ROOT / "LICENSE"), str(path))
    assert [key for key, _value in said] == ["tried", "tried", "fetched"]
    assert asked(shell, "unpack", str(draft), "0" * 64) == [("failed", "sum")]
    assert asked(shell, "unpack", str(draft), sha256) == [("python", VERSION)]
    (draft / "archive").write_bytes(b"no archive")
    [(key, why)] = asked(shell, "unpack", str(draft), hashlib.sha256(b"no archive").hexdigest())
    assert key == "failed" and "tar" in why
    assert os.listdir(lab.home) == [prefix.name]


# --- The lock ---------------------------------------------------------------------------------------------------------


def test_the_lock_pins_every_byte() -> None:
    debian, upstream = LOCK["debian"]["archive"], LOCK["upstream"]["archive"]
    for item in debian["inputs"]:
        assert item["source"] == "debian" and item["path"].endswith(f"/{item['filename']}")
        assert re.fullmatch("[0-9a-f]{64}", item["sha256"]) and item["size"] > 0 and item["licence"]
    [url] = upstream["urls"]
    assert url.endswith("/" + upstream["filename"].replace("+", "%2B")) and " " not in url
    assert re.fullmatch("[0-9a-f]{64}", upstream["sha256"]) and upstream["licence"]
    for python in (LOCK["debian"], LOCK["upstream"]):
        assert python["version"] in python["archive"]["filename"]


def test_the_recipe_has_all_its_inputs_and_no_more() -> None:
    recipe = yaml.safe_load((ROOT / "recipes/python3/recipe.yml").read_text())
    packages = [item["filename"].partition("_")[0] for item in LOCK["debian"]["archive"]["inputs"]]
    assert sorted(packages) == sorted([*recipe["debs"], *recipe["library_debs"]])
    assert LOCK["debian"]["version"].startswith(recipe["python"].removeprefix("python"))


def test_files_that_stacks_and_the_bootstrap_share_are_the_same() -> None:
    """One file name means one sum, also across locks: the mirror's recipe would otherwise get either."""
    ours = {item["filename"]: item for item in LOCK["debian"]["archive"]["inputs"]}
    stack = yaml.safe_load((ROOT / "group_vars/stack_cuda90_wheel/lock.yml").read_text())["stack_lock"]
    for item in stack["anaconda2"]["installer"]["inputs"]:
        assert ours.get(item["filename"], item) == item


@pytest.mark.parametrize(
    ("debian", "prefix"),
    [
        ("usr/bin/python3.9", "bin/python3.9"),
        ("usr/lib/python3.9/os.py", "lib/python3.9/os.py"),
        ("usr/lib/python3.9/lib-dynload/_ssl.cpython-39-x86_64-linux-gnu.so",) * 2,
        ("usr/lib/python3.9/lib-dynload/nis.cpython-39-x86_64-linux-gnu.so", None),
        ("usr/lib/python3.9/sitecustomize.py", None),
        ("usr/lib/python3.9/lib2to3/main.py", None),
        ("usr/share/doc/python3.9-minimal/copyright", None),
        ("etc/python3.9/sitecustomize.py", None),
    ],
)
def test_debian_files_find_their_place(debian: str, prefix: str | None) -> None:
    from recipes.python3.standalone import place

    recipe = yaml.safe_load((ROOT / "recipes/python3/recipe.yml").read_text())
    assert place(debian, recipe) == (prefix and prefix.removeprefix("usr/"))
