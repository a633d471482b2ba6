#!/usr/bin/env python3
"""Breaks a server's installs in every way of tests/breaks/breaks.yml, one at a time, and tells who notices.

  .venv/bin/python bench/breaks.py [--state DIR] [TEXT …]      only those whose title holds one of the texts

On a throwaway server that site.yml provisions, unless one of an earlier run is there. Each break is looked at thrice:

  re-hash    altered as it stands: what the look-up of `--tags verify` says of the install, by content
  ladder     published so, as if the role had built it so: the checks of the ladder that fail
  testinfra  the same: the tests of the role's Molecule scenario that fail and did not before

Exit status 0 where verify and testinfra both notice every break, and the ladder as the catalogue says. Half a minute
for each, after an installation of minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/fleet")]

from fleet import Fleet  # noqa: E402
from sandbox import Server  # noqa: E402

from tests.breaks.catalogue import Break, catalogue  # noqa: E402
from tests.breaks.workshop import Workshop  # noqa: E402
from tests.integration.site_run import Site, write_inventory  # noqa: E402

# Of all scenarios alike; the others are about the runs of a scenario.
SHARED = ["molecule/shared/tests/test_install.py", "molecule/shared/tests/test_upgrade.py"]


def provisioned(state: Path) -> Site:
    """A server with the whole stack, and two generations of it, as after an upgrade."""
    state.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(state)
    fleet.up([Server("server1", network=False)])
    site = Site(fleet, fleet.named("server1"))
    write_inventory(fleet)
    inventory = json.loads((state / "inventory.yml").read_text())
    inventory["all"]["hosts"]["server1"]["scenario_prefix"] = site.prefix
    (state / "inventory.yml").write_text(json.dumps(inventory, indent=2) + "\n")
    for arguments in (["-e", "{detectron_expect: {}}"], []):
        done = site.provision(*arguments)
        assert done.returncode == 0, done.stdout
    return site


def red(site: Site, role: str) -> set[str]:
    """Names of the verify tests of a role's scenario that fail."""
    environment = {
        "MOLECULE_SCENARIO_NAME": role,
        "MOLECULE_EPHEMERAL_DIRECTORY": str(site.fleet.state / "molecule"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    inventory = f"--ansible-inventory={site.fleet.state}/inventory.yml"
    shared = SHARED[1:] if role == "activation" else SHARED
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", inventory, "--connection=ansible", f"molecule/{role}/tests", *shared],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE))


def judge(workshop: Workshop, one: Break, before: set[str]) -> bool:
    """Break, ask all three, mend, and print what they say; returns whether it is noticed as it should be."""
    try:
        workshop.break_([one])
        state = workshop.state(one.role)
        workshop.publish([one])
        checks = failing_checks(workshop)
        tests = sorted(red(workshop.site, one.role) - before)
    finally:
        workshop.mend()
    noticed = {
        "re-hash": (state["why"], (state["state"] == "damaged") != one.added),
        "ladder": (
            ", ".join(checks) or f"blind: {one.blind}",
            set(checks) >= set(one.ladder) if one.ladder else not checks,
        ),
        "testinfra": (", ".join(tests) or "nothing", bool(tests)),
    }
    print(one.title)
    for who, (said, well) in noticed.items():
        print(f"  {who:10} {'' if well else 'NOT AS IT SHOULD BE: '}{said}", flush=True)
    return all(well for _said, well in noticed.values())


def failing_checks(workshop: Workshop) -> list[str]:
    """Names of the failing checks, or what the ladder says that does not get as far as to name them."""
    try:
        return workshop.failing_checks()
    except (subprocess.CalledProcessError, ValueError) as error:
        return [f"it breaks off: {error}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--state", type=Path, default=ROOT / ".fleet/breaks", help="the fleet's state folder")
    options = parser.parse_args()
    breaks = [one for one in catalogue() if not options.texts or any(text in one.title for text in options.texts)]
    workshop = Workshop(provisioned(options.state))
    workshop.mend()  # what a killed run of this left broken
    before = {role: red(workshop.site, role) for role in sorted({one.role for one in breaks})}
    for role, names in before.items():
        print(f"{role}: fail also when nothing is broken: {', '.join(sorted(names)) or 'none'}", flush=True)
    well = [judge(workshop, one, before[one.role]) for one in breaks]
    print(f"{sum(well)} of {len(well)} breaks are noticed as they should be.")
    return 0 if well and all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
