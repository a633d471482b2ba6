"""Bad input ends in one message with cause and remedy, and leaves everything as it was.

Each test runs the real site.yml: over SSH on a throwaway server where the server matters, else on this machine over a
local connection with a throwaway HOME. An older generation of a small install lies there, which no failure may touch.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet import Fleet, list_tree, remove_tree
from run_module import run_module
from sandbox import Server

ROOT = Path(__file__).resolve().parents[2]
LOCK: dict[str, Any] = yaml.safe_load((ROOT / "group_vars/stack_cuda90_wheel/lock.yml").read_text())["stack_lock"]
WHEEL = b"not really a wheel" * 1000


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int
    output: str

    @property
    def said(self) -> str:
        """The output in one line: messages are wrapped and indented."""
        return " ".join(self.output.split())


def ansible_playbook(home: Path, *arguments: str, playbook: str = "site.yml") -> Outcome:
    """Run a playbook as a person whose HOME is `home`, with nothing of this machine's settings."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "200",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        ["ansible-playbook", *arguments, str(ROOT / playbook)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Outcome(done.returncode, done.stdout)


def assert_refused(outcome: Outcome, *sentences: str, servers: int = 1, in_build: bool = False) -> None:
    """The run failed, once per server, with a message that holds the sentences, and without a traceback.

    `in_build`: within an install that had begun, whose end (the lease is given back) fails as well, and does not say
    the reason again.
    """
    assert outcome.status != 0, outcome.output
    assert "Traceback" not in outcome.output, outcome.output
    assert outcome.output.count("FAILED! =>") == (2 if in_build else 1) * servers, outcome.output
    assert outcome.output.count("Give the lease back] ***") == in_build, outcome.output
    if in_build:
        assert "is not installed: the task above failed." in outcome.said, outcome.output
    for sentence in sentences:
        assert sentence in outcome.said, f"{sentence!r} is not in\n{outcome.output}"


# --- This machine, over a local connection ----------------------------------------------------------------------------


class Person:
    """Somebody with a HOME, an inventory beside a lock of their own, and an older generation in their prefix."""

    def __init__(self, folder: Path, home: str = "home") -> None:
        self.folder, self.home = folder, folder / home
        self.prefix = folder / "prefix"
        self.lock = copy.deepcopy(LOCK) | {"name": "mine"}
        self.groups: list[str] = ["stack_mine"]
        self.home.mkdir()

    def write(self, **variables: Any) -> Path:
        """The inventory and the lock as they are now. Returns the inventory's path."""
        server = {"ansible_connection": "local", "stack_prefix": str(self.prefix), "stack_mirror": "", **variables}
        server.setdefault("ansible_python_interpreter", "/usr/bin/python3")
        groups: dict[str, Any] = {group: {"hosts": {"server": {}}} for group in self.groups}
        inventory = self.folder / "inventory" / "hosts.yml"
        lock = inventory.parent / "group_vars" / "stack_mine" / "lock.yml"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text(yaml.safe_dump({"stack_lock": self.lock}))
        inventory.write_text(yaml.safe_dump({"all": {"hosts": {"server": server}, "children": groups}}))
        return inventory

    def play(self, *arguments: str, **variables: Any) -> Outcome:
        return ansible_playbook(self.home, "--inventory", str(self.write(**variables)), *arguments)

    def older_generation(self) -> None:
        """A published install and the generation that is current, as an older lock would have left them."""
        path = self.prefix / "opt/old/1.0-aaa"
        install = {"role": "old", "path": str(path), "state": "absent", "version": "1.0", "recipe": 1, "digest": "aaa"}
        installs = {"old": {**install, "inputs": {}, "requires": [], "disk_bytes": 1}}
        given: dict[str, Any] = {"prefix": str(self.prefix), "role": "old", "installs": installs, "run": {"run": "old"}}
        run_module("install_begin", **given, stack="mine")
        (path / "library.so").write_text("old")
        run_module("install_publish", **given, cache=str(self.prefix / "var/cache"))
        for state in ("staged", "current"):
            files = {"activate.sh": "true\n"}
            given = {"prefix": str(self.prefix), "digest": "old", "installs": installs, "files": files}
            run_module("generation", **given, state=state)

    def seen(self) -> dict[str, Any]:
        """All that counts in the prefix: everything but var/, and this person's HOME."""
        prefix = list_tree(Path("/"), str(self.prefix), [f"{self.prefix}/var"]) if self.prefix.exists() else {}
        return prefix | list_tree(Path("/"), str(self.home), [f"{self.home}/.ansible"])


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    """Afterwards all is as it was, and the older generation is whole and current."""
    one = Person(tmp_path)
    one.older_generation()
    before = one.seen()
    yield one
    after = one.seen()
    # A build that has begun is a folder without a receipt: nobody uses it, and the next run begins anew.
    begun = [path for path in after.keys() - before.keys() if "/opt/" in path]
    assert {path: after[path] for path in after if path not in begun} == before
    assert not [path for path in begun if path.endswith("receipt.json")]
    assert os.readlink(one.prefix / "current") == "generations/1"
    remove_tree(one.prefix)  # pytest cannot remove what is read-only


def test_a_server_without_a_stack_group(person: Person) -> None:
    person.groups = ["gpu_servers"]
    assert_refused(
        person.play(), "server is in no group named stack_*.", "put it into one of the groups of group_vars/stack_*"
    )


def test_a_server_in_two_stack_groups(person: Person) -> None:
    person.groups = ["stack_mine", "stack_cuda90_wheel"]
    assert_refused(
        person.play(), "server is in stack_cuda90_wheel and stack_mine.", "A server belongs to exactly one stack"
    )


def test_a_stack_group_without_data(person: Person) -> None:
    person.groups = ["stack_typo"]
    assert_refused(
        person.play(), "stack_typo has no lock of its own", "add group_vars/stack_typo/lock.yml beside your inventory"
    )


def test_a_stack_group_with_the_data_of_another(person: Person) -> None:
    person.lock["name"] = "theirs"
    assert_refused(person.play(), "stack_mine has no lock of its own", "is that of stack_theirs")


@pytest.mark.parametrize("text", ["", "[stack_cuda90_wheel]\n"])
def test_an_inventory_without_servers(tmp_path: Path, text: str) -> None:
    (tmp_path / "hosts.ini").write_text(text)
    outcome = ansible_playbook(tmp_path, "--inventory", str(tmp_path / "hosts.ini"))
    assert_refused(outcome, "The inventory has no servers. Name an inventory with -i", servers=0)


def test_batches_that_an_inventory_asks_for(tmp_path: Path) -> None:
    """They are made before it is read for any server: without this, all servers would be provisioned at once."""
    server = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    group = {"hosts": {"one": server, "two": server}, "vars": {"stack_serial": 1}}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": {"stack_cuda90_wheel": group}}}))
    outcome = ansible_playbook(tmp_path, "--inventory", str(inventory))
    assert_refused(outcome, "stack_serial in an inventory comes too late", "-e stack_serial=1", servers=2)


def test_a_sum_that_is_not_known(person: Person) -> None:
    person.lock["nvidia_libs"]["wheel"]["sha256"] = None
    assert_refused(
        person.play("--tags", "nvidia_libs"),
        f"The sha256 of {LOCK['nvidia_libs']['wheel']['filename']} is not known (null in the lock)",
        "Compute it: `ansible-playbook playbooks/lock.yml",
    )


def test_a_branch_in_place_of_a_commit(person: Person) -> None:
    assert_refused(
        person.play(detectron_commit="master"),
        "The commit of detectron is 'master': give a full commit id of 40 hex digits.",
        "`git rev-parse NAME` tells the id.",
    )


# --- Sources that fail ------------------------------------------------------------------------------------------------


class Cutting(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of what lies in its folder `cut`, the first half."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2] if "/cut/" in self.path else content)

    def log_message(self, *_arguments: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Address of a loopback server with a mirror that cuts, `cut/`, and a file of other content, `other.whl`."""
    folder = tmp_path / "site"
    for path, content in {f"cut/sha256/{hashlib.sha256(WHEEL).hexdigest()}/w.whl": WHEEL, "other.whl": WHEEL}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Cutting, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def use_wheel(person: Person, url: str, content: bytes = WHEEL) -> None:
    """Make a file of `content` the one that nvidia_libs is installed from."""
    known = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(WHEEL)}
    wheel = {"filename": "w.whl", "source": "url", "urls": [url], "licence": "MIT", **known}
    person.lock["nvidia_libs"]["wheel"] = wheel


def test_bytes_with_another_sum(person: Person, site: str) -> None:
    use_wheel(person, f"{site}/other.whl", content=b"what the lock means")
    assert_refused(
        person.play("--tags", "nvidia_libs"),
        "w.whl could not be fetched.",
        f"{site}/other.whl: its bytes do not have the locked sha256 {person.lock['nvidia_libs']['wheel']['sha256']}",
        "`ansible-playbook playbooks/mirror.yml`",
        in_build=True,
    )
    assert not list(person.prefix.glob("var/cache/sha256/*/w.whl"))


def test_a_download_that_is_cut(person: Person, site: str) -> None:
    use_wheel(person, "http://127.0.0.1:1/w.whl")
    assert_refused(
        person.play("--tags", "nvidia_libs", stack_mirror=f"{site}/cut", stack_upstream=False),
        f"w.whl: ended after {len(WHEEL) // 2} of {len(WHEEL)} bytes",
        in_build=True,
    )
    (part,) = person.prefix.glob("var/cache/sha256/*/w.whl.part")
    assert part.read_bytes() == WHEEL[: len(WHEEL) // 2]  # the next run goes on from here


def test_an_upstream_that_cannot_be_reached(person: Person) -> None:
    use_wheel(person, "http://me:s3cret@127.0.0.1:1/w.whl")
    outcome = person.play("--tags", "nvidia_libs")
    assert_refused(
        outcome,
        "w.whl could not be fetched. Tried: http://127.0.0.1:1/w.whl: <urlopen error",
        "Fill a mirror on a machine that can reach it: `ansible-playbook playbooks/mirror.yml`.",
        in_build=True,
    )
    assert "s3cret" not in outcome.output


@pytest.mark.parametrize("where", ["controller:{folder}/none", "{folder}/none"])
def test_a_mirror_that_is_not_there(person: Person, where: str) -> None:
    mirror = where.format(folder=person.folder)
    assert_refused(
        person.play("--tags", "anaconda2", stack_mirror=mirror, stack_upstream=False),
        "Anaconda2-5.2.0-Linux-x86_64.sh is built, not downloaded, and the mirror does not have it",
        f"{person.folder}/none/built/",
        "Build it: `ansible-playbook playbooks/mirror.yml`.",
        in_build=True,
    )


def test_a_stack_to_mirror_that_does_not_exist(tmp_path: Path) -> None:
    variables = json.dumps({"mirror_stacks": ["typo"], "mirror_path": str(tmp_path / "mirror")})
    outcome = ansible_playbook(tmp_path, "--extra-vars", variables, playbook="playbooks/mirror.yml")
    assert_refused(outcome, "group_vars/stack_typo/lock.yml")
    assert not (tmp_path / "mirror").exists()


# --- Prefixes ---------------------------------------------------------------------------------------------------------


def test_a_prefix_that_is_not_ours(person: Person) -> None:
    thesis = person.folder / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("four years")
    assert_refused(
        person.play(stack_prefix=str(thesis)),
        f"{thesis} is not empty and was not made by this project (it has no .stack.json).",
        "Set stack_prefix to a folder that is new, empty, or this stack's own.",
    )
    assert os.listdir(thesis) == ["thesis.tex"]


def test_a_prefix_of_another_stack(person: Person) -> None:
    person.groups = ["stack_cuda90_wheel"]
    assert_refused(
        person.play(),
        f"{person.prefix} belongs to stack mine, not cuda90_wheel. One prefix holds one stack",
        "name another folder",
    )


def test_a_prefix_that_is_a_file(person: Person) -> None:
    (person.folder / "file").touch()
    assert_refused(person.play(stack_prefix=str(person.folder / "file")), "is not a folder. Set stack_prefix")


def test_a_prefix_that_is_no_full_path(person: Person) -> None:
    assert_refused(person.play(stack_prefix="detectron"), "stack_prefix is 'detectron': give a full path")
    assert not (ROOT / "detectron").exists()


def test_a_prefix_too_long_for_the_first_line_of_a_script(person: Person) -> None:
    long = person.folder / ("x" * 127)
    assert_refused(
        person.play("--tags", "preflight", stack_prefix=str(long)),
        "STOP prefix_length: Prefix too long",
        "at most 127 work.",
        "Set stack_prefix to a path that is shorter, by",
    )
    assert not long.exists()


def test_a_home_with_a_blank(tmp_path: Path) -> None:
    person = Person(tmp_path, home="my home")
    person.groups = ["stack_cuda90_wheel"]
    assert_refused(
        person.play("--tags", "preflight", stack_prefix="~/detectron"),
        "STOP prefix_name: Prefix with characters that tools cannot handle",
        "also where the home itself has such a name.",
    )
    assert [path.name for path in person.home.iterdir() if path.name != ".ansible"] == []


# --- Servers ----------------------------------------------------------------------------------------------------------

SERVERS = [
    Server("small", home_size=50_000_000),
    Server("bare", compiler=False),
    Server("pythonless", python="none"),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    servers = Fleet(tmp_path_factory.mktemp("bad"))
    try:
        servers.up(SERVERS)
        (servers.state / "inventory.yml").write_text(json.dumps(servers.inventory({"stack_cuda90_wheel": []})))
        yield servers
    finally:
        servers.down()


@pytest.fixture
def on(fleet: Fleet, tmp_path: Path) -> Callable[..., Outcome]:
    """Plays site.yml on one server, and checks that it has no trace of that."""

    def play(server: str, *arguments: str) -> Outcome:
        inventory = str(fleet.state / "inventory.yml")
        before = fleet.snapshot(fleet.named(server), [])
        outcome = ansible_playbook(tmp_path, "--inventory", inventory, "--limit", server, *arguments)
        assert fleet.snapshot(fleet.named(server), []) == before
        return outcome

    return play


def test_too_little_disk(on: Callable[..., Outcome]) -> None:
    assert_refused(
        on("small"),
        "STOP disk: Too little disk space",
        "The filesystem leaves 50.0 MB at /home/researcher",
        "Free some space there, or set stack_prefix to a folder on a larger filesystem.",
    )


def test_too_little_disk_without_preflight(on: Callable[..., Outcome]) -> None:
    assert_refused(
        on("small", "--tags", "nvidia_libs"),
        "nvidia_libs needs 1.1 GB below /home/researcher/detectron/cuda90_wheel, and 0.0 GB are free.",
        "Free some space, or set stack_prefix to a folder on a larger disk.",
    )


def test_no_compiler(on: Callable[..., Outcome]) -> None:
    assert_refused(on("bare"), "STOP compiler: No working C compiler", "Ask the administrator for gcc")


def test_no_python_on_the_server(on: Callable[..., Outcome]) -> None:
    assert_refused(
        on("pythonless"),
        "/usr/bin/python3 on the server cannot run Ansible's modules",
        "they need Python 3.9 or newer. Set bootstrap_python: true for this server in your inventory",
    )


def test_a_python_that_is_too_old_for_ansible(person: Person) -> None:
    """What Python 3.6 answers to a module; a real one is in no registry."""
    old = person.folder / "python3.6"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && exec echo Python 3.6.9\necho SyntaxError >&2; exit 1\n')
    old.chmod(0o755)
    assert_refused(
        person.play(ansible_python_interpreter=str(old)),
        f"{old} on the server cannot run Ansible's modules (Python 3.6.9): they need Python 3.9 or newer.",
    )


def test_a_python_that_is_too_old_for_the_stack(person: Person) -> None:
    person.lock["requirements"]["python_min"] = "3.99"
    assert_refused(person.play("--tags", "preflight"), "STOP python:", "3.99")
