"""The servers are what the scenarios rely on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import testinfra
from testinfra.host import Host

INVENTORY = f"{os.environ['MOLECULE_EPHEMERAL_DIRECTORY']}/inventory"


def test_login_is_an_account_without_privileges(host: Host) -> None:
    assert host.user().name == "researcher"
    assert host.user().uid != 0
    assert host.run("sudo -n true").rc != 0


def test_two_servers_share_their_home_and_one_has_its_own() -> None:
    servers = testinfra.get_hosts(["all"], connection="ansible", ansible_inventory=INVENTORY)
    homes = {server.check_output("hostname"): server.check_output("stat --format %d:%i ~") for server in servers}
    assert sorted(homes) == ["server1", "server2", "server3"]
    assert homes["server1"] == homes["server2"] != homes["server3"]


def test_run_without_servers_fails(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {}\n")
    converge = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).parent / "shared/converge.yml"
    done = subprocess.run(["ansible-playbook", "-i", tmp_path, converge], capture_output=True, text=True)
    assert done.returncode != 0
    assert "The inventory does not hold the three servers" in " ".join(done.stdout.split())
