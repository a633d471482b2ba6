"""Throwaway servers for tests that run all of site.yml."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from fleet import Fleet
from sandbox import Server

from tests.integration.site_run import ROOT, SOURCES, FirstRun, Site

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
        (state / "inventory.yml").write_text(json.dumps(fleet.inventory({"stack_cuda90_wheel": []})))
        unused = iter(fleet.servers.values())
        yield lambda: Site(fleet, next(unused))
    finally:
        fleet.down()


@pytest.fixture(scope="session")
def first_run(fresh_site: Callable[[], Site]) -> FirstRun:
    """site.yml on a server whose home holds settings that other installs break on. Shared: it takes over a minute."""
    site = fresh_site()
    site.shell((ROOT / "molecule/shared/files/spoil_home.sh").read_text())
    before = site.snapshot(site.prefix)
    done = site.provision()
    assert done.returncode == 0, done.stdout
    return FirstRun(site, before, site.snapshot(site.prefix))
