"""The page about a fleet by the real playbook, over SSH: what is asked, what is kept, and servers that do not answer.

The servers have runs as Detectron leaves them, and nothing installed. The tests tell one story, in order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_module  # noqa: F401  makes what the next line imports known
from fleet import Fleet
from report_fleet import generations, ladder, run, statistics
from sandbox import Server

from tests.integration.tiny_run import PREFIX, ROOT, prepare, started

REPORT = "playbooks/report.yml"
HOSTILE = "<b>{{ lookup('pipe', 'touch hacked') }}"


class Lab:
    """Two servers, and an inventory that is a folder."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.inventory = fleet.state / "lab"
        prepare(fleet)
        self.inventory.mkdir()
        shutil.move(fleet.state / "group_vars", self.inventory)
        self.hosts = json.loads((fleet.state / "inventory.yml").read_text())
        self.page = self.inventory / "report/index.html"
        for name in ("server1", "server2"):
            prefix = self.prefix(name)
            generations(prefix)
            ladder(prefix, name, gpus=False)
            run(prefix, f"long_{name}", "stopped", seed=1, top=40000, host=name, server=name)
        run(self.prefix("server2"), HOSTILE, "failed", seed=2, top=4000, host="server2")
        self.write_hosts()

    def prefix(self, name: str) -> Path:
        return self.fleet.state / "homes" / name / PREFIX

    def write_hosts(self) -> None:
        (self.inventory / "hosts.yml").write_text(json.dumps(self.hosts))

    def look(self, *arguments: str, status: int = 0) -> str:
        """What the playbook says, in one line."""
        process = started(self.fleet, REPORT, *arguments, inventory=self.inventory)
        said, _ = process.communicate()
        assert process.returncode == status, said
        return " ".join(said.split())

    def known(self, name: str) -> dict[str, Any]:
        known: dict[str, Any] = json.loads((self.page.parent / f"state/{name}.json").read_text())
        return known


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    fleet = Fleet(tmp_path_factory.mktemp("report"))
    try:
        fleet.up([Server("server1", network=False), Server("server2", network=False)])
        yield Lab(fleet)
    finally:
        fleet.down()


def test_check_mode_asks_and_writes_nothing(lab: Lab) -> None:
    assert "would be written, about 2 servers" in lab.look("--check")
    assert not lab.page.parent.exists()


def test_where_the_inventory_is_a_list_of_hosts_the_page_is_for_the_present_folder(lab: Lab, tmp_path: Path) -> None:
    process = started(lab.fleet, REPORT, "--check", inventory=Path("server9,"), folder=tmp_path)
    said, _ = process.communicate()
    assert f"{tmp_path}/report/index.html would be written, about 1 server." in " ".join(said.split())


def test_one_call_to_each_server_makes_the_page_and_changes_nothing_there(lab: Lab) -> None:
    servers = [lab.fleet.named(name) for name in ("server1", "server2")]
    before = [lab.fleet.snapshot(server, []) for server in servers]
    for server in servers:
        lab.fleet.reset_calls(server)
    said = lab.look()
    assert "is written: 2 servers, 3 runs (1 failed, 2 stopped)" in said
    assert [lab.fleet.calls(server)["sessions"] for server in servers] == [1, 1]
    assert [lab.fleet.snapshot(server, []) for server in servers] == before
    page = lab.page.read_text()
    for words in ("long_server1", "long_server2", "4 of 8 rungs passed", "1.0.1-2382f10f4596", "The loss is not a"):
        assert words in page, words


def test_what_a_server_calls_its_runs_is_never_a_template(lab: Lab) -> None:
    assert "&lt;b&gt;{{ lookup(&#39;pipe&#39;, &#39;touch hacked&#39;) }}" in lab.page.read_text()
    assert HOSTILE in lab.known("server2")["runs"]
    assert not [folder for folder in (ROOT, ROOT / "playbooks", Path.cwd()) if (folder / "hacked").exists()]


def test_the_next_look_goes_on_where_the_last_one_ended(lab: Lab) -> None:
    before = lab.known("server1")["runs"]["long_server1"]
    with (lab.prefix("server1") / "runs/long_server1/log.txt").open("a") as log:
        log.write(statistics(20000, 24000, 0.005, 40000))
    lab.look("--limit=server1")
    after = lab.known("server1")["runs"]["long_server1"]
    assert after["series"][: len(before["series"])] == before["series"]
    assert after["series"][-1][0] == 23920 and after["log"]["offset"] > before["log"]["offset"]
    assert "This look did not ask it" in lab.page.read_text()


def test_a_server_that_does_not_answer_is_shown_with_its_last_state(lab: Lab) -> None:
    answered = lab.known("server2")["answered"]
    # Another address: to this one, ssh keeps a connection open.
    lab.hosts["all"]["hosts"]["server2"] |= {"ansible_host": "127.0.0.9", "ansible_port": 9}
    lab.write_hosts()
    said = lab.look()
    assert "server2 DID NOT ANSWER; its last answer is" in said and "Connection refused" in said
    known = lab.known("server2")
    assert known["answered"] == answered < known["since"]
    page = lab.page.read_text()
    assert "It has not answered since" in page and "long_server2" in page


def test_the_run_fails_where_nobody_answers_or_one_cannot_be_looked_at_after_the_page_is_written(lab: Lab) -> None:
    lab.page.unlink()
    assert "No server answered." in lab.look("--limit=server2", status=2)
    assert lab.page.exists()
    lab.page.unlink()
    del lab.hosts["all"]["children"]["stack_tiny"]["hosts"]["server2"]
    lab.write_hosts()
    said = lab.look(status=2)
    assert "server2 could not be looked at: server2 is in no group stack_*" in said
    assert "server2 COULD NOT BE LOOKED AT; its last answer is" in said
    assert "long_server1" in lab.page.read_text()


def test_what_is_broken_on_the_controller_is_begun_anew(lab: Lab) -> None:
    (lab.page.parent / "state/server1.json").write_text('{"runs": ')
    assert "2 servers" in lab.look("--limit=server1")
    assert len(lab.known("server1")["runs"]["long_server1"]["series"]) > 200
