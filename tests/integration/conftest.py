"""Throwaway servers for tests that run all of site.yml."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pytest
from fleet import Fleet
from sandbox import Server
from tiny_coco import make

from tests.integration.site_run import SOURCES, FirstRun, Site, write_inventory
from tests.obstacles.account import hostile_site

# More than the tests ask for; what a server costs, it costs when it is logged in to.
SERVERS = 20


@pytest.fixture(scope="session")
def fresh_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Site]]:
    """Hands out servers that nobody has logged in to yet. All are ended after the last test."""
    assert SOURCES.exists(), f"{SOURCES} is missing: fill the mirror with `ansible-playbook playbooks/mirror.yml`"
    state = tmp_path_factory.mktemp("fleet")
    fleet = Fleet(state)
    try:
        # Without a network: what a server needs, it is given.
        fleet.up([Server(f"server{number}", network=False) for number in range(1, SERVERS + 1)])
        write_inventory(fleet)
        unused = iter(fleet.servers.values())
        yield lambda: Site(fleet, next(unused))
    finally:
        fleet.down()


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstRun]:
    """site.yml for an account in which other installs break. Shared: it takes over a minute."""
    fleet = Fleet(tmp_path_factory.mktemp("hostile"))
    try:
        site = hostile_site(fleet)
        before = site.snapshot(site.prefix)
        done = site.provision()
        assert done.returncode == 0, done.stdout
        yield FirstRun(site, before, site.snapshot(site.prefix))
    finally:
        fleet.down()


@pytest.fixture(scope="session")
def things(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The server of the first run; beside its prefix, a folder things with a datasets.json of things_{train,val}."""
    site, made = first_run.site, tmp_path_factory.mktemp("things")
    things = f"{PurePosixPath(site.prefix).parent}/things"
    datasets = {f"things_{name}": make(made, name=name, seed=seed) for seed, name in enumerate(["train", "val"])}
    (made / "datasets.json").write_text(json.dumps(datasets).replace(str(made), things))
    packed = subprocess.run(["tar", "c", "-C", made, "."], check=True, capture_output=True).stdout
    unpack = f"rm -rf {things} && mkdir {things} && tar x -C {things}"
    subprocess.run([*site.fleet.ssh(site.server), unpack], input=packed, check=True, capture_output=True)
    return site
