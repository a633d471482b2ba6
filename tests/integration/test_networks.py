"""A server behind a company's proxy, whose password nobody sees, and one that is reached by way of another.

What is installed is a file and a git tree, by the play of playbooks/servers.yml with these small tasks for its roles.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from company_network import SECRETS, USER, Company, company
from fleet import Fleet, ssh_options
from sandbox import LOGIN, PORT, Server

ROOT = Path(__file__).resolve().parents[2]
CONTENT = os.urandom(1 << 10) * (20 << 10)  # 20 MB: pushed in more than one piece
WRONG = "S3cretButWrong"


def git(folder: Path, *arguments: str) -> str:
    who = {f"GIT_{who}_{what}": "a@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=os.environ | who | settings, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def fill_mirror(mirror: Path) -> list[dict[str, Any]]:
    """Make a mirror of a file and a repository; returns them as artifacts, without an address."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    (mirror / "sha256" / sha256).mkdir(parents=True)
    (mirror / "sha256" / sha256 / "file").write_bytes(CONTENT)
    tree = mirror / "tree"
    tree.mkdir()
    (tree / "text").write_text("of the tree\n")
    for arguments in (("init", "-q"), ("add", "text"), ("commit", "-qm", "one")):
        git(tree, *arguments)
    bare = mirror / "git/tree.git"
    git(tree, "clone", "-q", "--bare", str(tree), str(bare))
    git(bare, "update-server-info")
    commit = git(tree, "rev-parse", "HEAD")
    file = {"filename": "file", "sha256": sha256, "size": len(CONTENT), "source": "url", "urls": []}
    return [file, {"filename": "tree.tar", "repository": "/nowhere", "commit": commit, "mirrored": "tree.git"}]


def small_play(artifacts: list[dict[str, Any]]) -> dict[str, Any]:
    """The play of playbooks/servers.yml, with all that it tells its tasks; its tasks are others."""
    [play] = yaml.safe_load((ROOT / "playbooks/servers.yml").read_text())
    play["roles"] = [{"role": "stack"}]
    play["vars"]["__data_install"] = {"version": "1", "recipe": 1, "inputs": {}, "requires": [], "disk_bytes": 1}
    play["tasks"] = [
        {"name": "Begin", "install_begin": {"role": "data"}, "register": "begun"},
        {"name": "Fetch", "fetch_artifacts": {"artifacts": artifacts}, "register": "fetched"},
        {
            "name": "Unpack",
            "unpack_archive": {"src": "{{ fetched.files['tree.tar'] }}", "dest": "{{ begun.path }}"},
        },
        {"name": "Publish", "install_publish": {"role": "data", "origin": "{{ fetched.origin }}"}},
    ]
    return dict(play)  # its type, for the type checker


class Watch:
    """The arguments of all processes of this machine, which are those of its servers too, again and again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:  # it has ended
                    continue
            time.sleep(0.02)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    started = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        started.up([Server("gateway"), Server("proxied"), Server("inside")])
        yield started
    finally:
        started.down()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with company(tmp_path_factory.mktemp("company")) as made:
        yield made


def run(fleet: Fleet, server: str, folder: Path, artifacts: list[dict[str, Any]], **variables: Any) -> tuple[int, str]:
    """(exit status, output at -vvv) of the small play on one server; the log is `folder`/log."""
    inventory = fleet.inventory({"stack_tiny": []})
    inventory["all"]["vars"] |= {"stack_lock": {"name": "tiny"}, **variables}
    (folder / "inventory.yml").write_text(json.dumps(inventory))
    (folder / "play.yml").write_text(yaml.safe_dump([small_play(artifacts)]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-vvv", "--limit", server]
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOG_PATH": str(folder / "log")}
    settings["ANSIBLE_INJECT_INVOCATION"] = "true"  # at -vvv modules' arguments are shown: since 2.21 on demand alone
    done = subprocess.run(
        [*command, "--inventory", str(folder / "inventory.yml"), str(folder / "play.yml")],
        env=os.environ | settings | {"COLUMNS": "1000"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def receipt_of(fleet: Fleet, server: str) -> dict[str, Any]:
    [path] = (fleet.state / "homes" / server).glob("detectron/tiny/opt/data/*/receipt.json")
    receipt: dict[str, Any] = json.loads(path.read_text())
    return receipt


def test_a_proxys_password_is_seen_nowhere(
    fleet: Fleet, network: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, tree = fill_mirror(network.folder / "mirror")
    address = f"{network.url}/mirror"
    artifacts = [
        {**file, "urls": [f"{address}/sha256/{file['sha256']}/file"]},
        {**tree, "repository": f"{address}/git/tree.git"},
    ]
    # The bundle must be where the server sees it.
    (fleet.state / "homes/proxied/company.pem").write_bytes(network.bundle.read_bytes())
    (fleet.state / "homes/proxied/company.pem").chmod(0o644)
    variables = {
        "stack_mirror": "",
        "stack_proxy": "{{ lookup('ansible.builtin.env', 'STACK_PROXY') }}",
        "stack_ca_bundle": "~/company.pem",
    }
    with Watch() as watch:
        monkeypatch.setenv("STACK_PROXY", f"http://alice:{WRONG}@{network.proxy.place}")
        status, refused = run(fleet, "proxied", tmp_path, artifacts, **variables)
        assert (status, "refuses the login (407)" in refused) == (2, True), refused
        assert network.proxy.refused and not network.proxy.passed
        monkeypatch.setenv("STACK_PROXY", network.proxy.url)
        status, output = run(fleet, "proxied", tmp_path, artifacts, **variables)
        assert status == 0, output
    assert set(network.proxy.passed) == {network.url.partition("//")[2]}
    origin = receipt_of(fleet, "proxied")["origin"]
    assert origin == {"file": artifacts[0]["urls"][0], "tree.tar": artifacts[1]["repository"]}

    # All that somebody may read, now or later.
    readable = {"output": (refused + output).encode(), "log": (tmp_path / "log").read_bytes()}
    readable |= {"arguments": b"\n".join(watch.seen)}
    for top in (fleet.state / "homes/proxied", fleet.folder(fleet.named("proxied"))):
        readable |= {str(path): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    secrets = [secret.encode() for secret in (*SECRETS, WRONG, USER)]
    assert [where for where, text in readable.items() if any(secret in text for secret in secrets)] == []
    # It was watched closely enough to see what a password could be in.
    assert b"VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in readable["output"]
    for program in (b"python3", b"git\0--git-dir=", b"remote-https"):
        assert any(program in arguments for arguments in watch.seen), program
    assert f"{fleet.state}/homes/proxied/company.pem" in readable


def test_all_goes_through_a_jump_host(fleet: Fleet, tmp_path: Path) -> None:
    """Also what is pushed; over one connection, by the settings of ansible.cfg."""
    artifacts = fill_mirror(tmp_path / "mirror")
    # What a person has in ~/.ssh/config for the gateway.
    options = [word for word in ssh_options(fleet.state / "known_hosts") if "=" in word]
    lines = [word.replace("=", " ", 1) for word in options]
    (tmp_path / "ssh_config").write_text("\n".join([*lines, f"IdentityFile {fleet.state}/client_key", ""]))
    jump = f"{LOGIN}@{fleet.address(fleet.named('gateway'))}:{PORT}"
    variables = {
        "stack_mirror": f"controller:{tmp_path}/mirror",
        "ansible_ssh_common_args": f"-F {tmp_path}/ssh_config -o ProxyJump={jump}",
    }
    with tempfile.TemporaryDirectory() as sockets:  # their paths have to be short
        status, output = run(fleet, "inside", tmp_path, artifacts, ansible_control_path_dir=sockets, **variables)
    assert status == 0, output
    assert set(receipt_of(fleet, "inside")["origin"].values()) == {"mirror (pushed from the controller)"}
    assert fleet.calls(fleet.named("gateway")) == {"connections": 1, "sessions": 0}
    assert fleet.calls(fleet.named("inside"))["connections"] == 1
