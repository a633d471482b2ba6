"""After an upgrade, two generations work: the new one, which is current, and the one before it."""

from __future__ import annotations

import json
import os

import pytest
from testinfra.host import Host

CPU_RUNGS = ("files", "linkage", "import", "numerics")


@pytest.fixture
def generations(host: Host, prefix: str) -> dict[str, str]:
    """Folders of the generation that the upgrade made, which is current, and of the newest other one that is whole.

    Scenarios before this one have left others, whose installs its prepare has removed: what lies there has no receipt.
    """
    newest, *others = host.check_output(f"ls -v -d -r {prefix}/generations/*").split()
    each_link = "for link in $(find {} -maxdepth 1 -type l); do test -e $link/receipt.json || exit 1; done"
    whole = [path for path in others if host.run(f"sh -c '{each_link.format(path)}'").rc == 0]
    return {"current": newest, "before": whole[0]}


def test_upgrade_is_current(host: Host, prefix: str, generations: dict[str, str]) -> None:
    assert host.check_output(f"readlink -f {prefix}/current") == generations["current"]


def test_upgrade_changed_what_its_pin_shapes(host: Host, generations: dict[str, str]) -> None:
    scenario = os.environ["MOLECULE_SCENARIO_NAME"]
    changed = {"site": "anaconda2", "activation": "expect.json"}.get(scenario, scenario)
    before, after = (
        host.check_output(f"cd {path} && readlink {changed} || cat {changed}") for path in generations.values()
    )
    assert before != after


@pytest.mark.parametrize("which", ["before", "current"])
def test_generation_passes_all_that_needs_no_gpu(host: Host, generations: dict[str, str], which: str) -> None:
    said = host.run(f"env -i HOME=/tmp {generations[which]}/bin/check-ladder --json -").stdout
    statuses = {rung["rung"]: rung["status"] for rung in json.loads(said)["rungs"]}
    assert {name: statuses[name] for name in CPU_RUNGS} == dict.fromkeys(CPU_RUNGS, "passed")
