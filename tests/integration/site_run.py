"""Running all of site.yml against a throwaway server, over SSH."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleet import Fleet
from sandbox import Server

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "mirror/sources.yml"


@dataclasses.dataclass(frozen=True)
class Site:
    """One server, and how to provision it."""

    fleet: Fleet
    server: Server

    @property
    def prefix(self) -> str:
        """The stack's folder: by the default of stack_prefix, or on the data disk of a server that has one."""
        return f"{self.server.data or self.server.home}/detectron/cuda90_wheel"

    def provision(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run site.yml against the server; both streams come in `stdout`."""
        return self.play("site.yml", *arguments)

    def play(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the repository against the server; both streams come in `stdout`."""
        ansible_playbook = Path(sys.executable).with_name("ansible-playbook")
        inventory, sources = f"--inventory={self.fleet.state}/inventory.yml", f"--extra-vars=@{SOURCES}"
        return subprocess.run(
            [ansible_playbook, inventory, sources, f"--limit={self.server.name}", *arguments, ROOT / playbook],
            env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def shell(self, program: str) -> str:
        """Run a program of the Bourne shell on the server; returns what it prints, without a login's greeting."""
        login, begin = [*self.fleet.ssh(self.server), "/bin/sh -e"], "-- here it begins --\n"
        program = f"echo '{begin.strip()}'\n{program}"
        said = subprocess.run(login, input=program, check=True, capture_output=True, text=True).stdout
        return said.partition(begin)[2]

    def snapshot(self, *exclude: str) -> dict[str, dict[str, Any]]:
        """All that lies in HOME, /tmp and /var/tmp."""
        return self.fleet.snapshot(self.server, exclude)


def write_inventory(fleet: Fleet) -> None:
    """The inventory of a fleet whose servers are all of stack cuda90_wheel."""
    inventory = fleet.inventory({"stack_cuda90_wheel": []})
    for name, server in fleet.servers.items():
        if server.data:
            inventory["all"]["hosts"][name]["stack_prefix"] = Site(fleet, server).prefix
    (fleet.state / "inventory.yml").write_text(json.dumps(inventory, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """A whole first install, and what lay outside the prefix before and after it."""

    site: Site
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]
