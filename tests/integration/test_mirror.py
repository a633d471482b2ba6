"""A server that is given a mirror: served over HTTP, or pushed to where there is no network at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet import Fleet
from sandbox import Server

from tests.integration.site_run import ROOT, FirstRun, Site

MIRROR = ROOT / "mirror"
LOCK: dict[str, Any] = yaml.safe_load((ROOT / "group_vars/stack_cuda90_wheel/lock.yml").read_text())["stack_lock"]


@pytest.fixture
def web_server() -> Iterator[tuple[str, list[str]]]:
    """Address of the mirror on a plain web server, and the paths that it was asked for."""
    asked: list[str] = []

    class Listing(SimpleHTTPRequestHandler):
        def log_request(self, *_arguments: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Listing, directory=str(MIRROR))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server that can reach the web server."""
    fleet = Fleet(tmp_path)
    try:
        fleet.up([Server("served")])
        (tmp_path / "inventory.yml").write_text(json.dumps(fleet.inventory({"stack_cuda90_wheel": []})))
        yield Site(fleet, fleet.servers["served"])
    finally:
        fleet.down()


def origins(site: Site) -> list[str]:
    """Where the installers of the server's conda installs came from."""
    receipts = site.shell(f"for receipt in {site.prefix}/opt/anaconda2/*/receipt.json; do cat $receipt; echo; done")
    decoder, found = json.JSONDecoder(), []
    while receipts := receipts.strip():
        receipt, end = decoder.raw_decode(receipts)
        found += receipt["origin"].values()
        receipts = receipts[end:]
    return found


def provision(site: Site, **variables: Any) -> None:
    done = site.provision("--tags=anaconda2", f"--extra-vars={json.dumps({'stack_upstream': False} | variables)}")
    assert done.returncode == 0, done.stdout


def test_a_server_installs_from_a_web_server_what_the_mirror_built_and_what_is_a_plain_file(
    site: Site, web_server: tuple[str, list[str]]
) -> None:
    url, asked = web_server
    provision(site, stack_mirror=url)
    [built] = origins(site)
    assert built.startswith(f"{url}/built/")
    path = built.removeprefix(url)
    assert path in asked

    # A lock whose installer is no recipe but a file of somebody's, as Anaconda, Inc.'s is; here it has the same bytes.
    record = json.loads((MIRROR / path.lstrip("/")).with_name("artifact.json").read_text())
    known = {key: record[key] for key in ("filename", "sha256", "size")}
    installer = {**known, "source": "url", "urls": [built], "licence": "as it says"}
    lock = LOCK | {"anaconda2": LOCK["anaconda2"] | {"installer": installer}}
    asked.clear()
    provision(site, stack_lock=lock, stack_mirror="", stack_upstream=True)
    assert origins(site) == [built, built]
    assert asked == [path]


def test_a_first_install_needs_no_network_where_the_mirror_is_pushed(first_run: FirstRun) -> None:
    """All of the stack is there, and the server has no interface but its own loopback."""
    interfaces = first_run.site.shell("tail -n +3 /proc/net/dev | cut -d: -f1").split()
    assert interfaces == ["lo"]
    assert first_run.site.shell(f"readlink {first_run.site.prefix}/current").strip() == "generations/1"
