"""Filters of playbooks/doctor.yml: what a shell found as a server of the preflight catalogue, and what is wrong with an
installed stack. Findings have the form of `preflight_findings`: {id, severity, title, what, cause, remedy}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_failure import no_commands  # noqa: E402
from ansible.module_utils.stack_ladder import failed  # noqa: E402

Finding = dict[str, str]

# What files/doctor_probe.sh asks after, by id of preflight's catalogue. The rest needs the modules.
ASKED = ("architecture", "glibc", "python", "prefix_not_writable", "disk", "compiler", "gpu_driver_old")
SEVERITIES = ("stop", "warn", "info")


def doctor_server(text: str) -> dict[str, Any]:
    """A server as preflight_probe returns it, from the KEY=value lines of files/doctor_probe.sh.

    What the shell does not ask after is given in the form of which nothing is to be said. Beyond what the module
    returns, it has "pythons", the (version, path) of each Python 3, and "installed", whether a generation is current.
    """
    pairs = [line.strip().partition("=")[::2] for line in text.splitlines() if "=" in line]
    told = {"free_bytes": "", **dict(pairs)}
    nowhere = {"path": "", "network": False, "noexec": False, "free_bytes": None, "free_files": None}
    prefix = {
        **nowhere,
        "path": told["prefix"],
        "nearest": told["nearest"],
        "writable": "writable" in told,
        "free_bytes": int(told["free_bytes"]) if told["free_bytes"] else None,
        "quota_bytes": None,
        "quota_files": None,
    }
    return {
        "architecture": told["architecture"],
        "glibc": told["glibc"],
        "python": {"version": told["python"] or "(not there)", "executable": told["executable"]},
        "pythons": [tuple(value.split(" ", 1)) for key, value in pairs if key == "found"],
        "installed": "installed" in told,
        "user": {"name": told["user"], "uid": 1},
        "umask": 0o022,
        "display": "",
        "locale": {},
        "filesystems": {"home": nowhere, "prefix": prefix, "tmp": nowhere},
        "tools": {"gcc": {"error": told["compiler_error"]}, "git": {"error": ""}, "make": {"error": ""}},
        "gpu": {"driver": told["driver"], "devices": [], "boards": [], "error": ""},
        "environment": [],
        "config_files": [],
        "user_site": {"path": "", "shadowing": []},
        "libraries": [],
        "detectron_operators": [],
    }


def numbers(version: str) -> tuple[int, ...]:
    """A version of digits and dots, comparable: "3.11.2" -> (3, 11, 2)."""
    return tuple(map(int, version.split(".")))


def doctor_asked(
    findings: list[Finding], server: Mapping[str, Any], python_min: str, bootstrap: str = ""
) -> list[Finding]:
    """Those of `findings` about a `doctor_server` that the shell asked after.

    Where the server has a Python that suffices, beside one that does not, the remedy names it. `bootstrap`: the command
    that puts a Python into the prefix, where the inventory asks for that.
    """
    asked = [dict(finding) for finding in findings if finding["id"] in ASKED]
    good = [(numbers(found), path) for found, path in server["pythons"] if numbers(found) >= numbers(python_min)]
    for finding in asked:
        if finding["id"] == "python" and bootstrap:
            finding["remedy"] = f"bootstrap_python is set, and site.yml puts one there: {bootstrap}"
        elif finding["id"] == "python" and good:
            path = max(good)[1]
            finding["remedy"] = f"Set this in the inventory, for this server: ansible_python_interpreter: {path}"
    return asked


def doctor_refused(message: str) -> list[Finding]:
    """The finding that the look-up refused the server, with what it said; none where it said nothing."""
    if not message:
        return []
    return [
        {
            "id": "look_up",
            "severity": "stop",
            "title": "Inventory, prefix or server that the stack refuses",
            "what": message,
            "cause": "No role goes on where the look-up of what the server has does not succeed.",
            "remedy": "Do what the message says. The doctor then tells the rest.",
        }
    ]


def doctor_installed(found: Mapping[str, Any], site: str) -> list[Finding]:
    """What is wrong with the stack itself: its installs, its current generation, its last check ladder.

    `found` is what stack_lookup returned, `site` the command that runs site.yml on this server.
    """
    return list(_wrong(found, site))


def _wrong(found: Mapping[str, Any], site: str) -> Iterator[Finding]:
    # A list: of what comes out of a template, core 2.19 gives values() that can be gone through once.
    installs = list(found["installs"].values())
    absent = [install["role"] for install in installs if install["state"] == "absent"]
    damaged = [install for install in installs if install["state"] == "damaged"]
    if absent:
        yield {
            "id": "install_missing",
            "severity": "stop",
            "title": "Installs missing",
            "what": f"{found['prefix']} lacks {', '.join(absent)}, as the lock and the inventory want them.",
            "cause": "They were never installed here, a run broke off, or the lock or a knob changed since.",
            "remedy": site,
        }
    for install in damaged:
        yield {
            "id": "install_damaged",
            "severity": "stop",
            "title": "Install damaged",
            "what": f"{install['role']} in {install['path']}: {install['why']}.",
            "cause": "Something altered or removed files after they were published.",
            # By content: of a file with its old size and time, a look at sizes and times sees nothing.
            "remedy": f"{site} --extra-vars stack_deep=true",
        }
    current, ladder = found["generation"], found["ladder"]
    if not current:
        if not absent:
            yield {
                "id": "generation_none",
                "severity": "stop",
                "title": "No generation in use",
                "what": f"{found['prefix']}/current leads to no whole generation: {found['current']['why']}.",
                "cause": "A run broke off before role activation, or `current` or what it leads to was altered.",
                "remedy": f"{site} --extra-vars stack_deep=true",
            }
        return
    others = [role for role, install in found["installs"].items() if current["installs"].get(role) != install["path"]]
    if others and not absent:
        yield {
            "id": "generation_old",
            "severity": "warn",
            "title": "Generation in use is not what the lock wants",
            "what": f"{current['path']} uses another {', '.join(others)} than the lock and the inventory want.",
            "cause": "Those changed since, somebody went back (playbooks/rollback.yml), or a run broke off.",
            "remedy": f"{site} --tags activation",
        }
    if (ladder.get("digest"), ladder.get("driver")) != (current["digest"], found["driver"]):
        known = f"is of {ladder['digest']}, driver {ladder['driver'] or 'none'}" if ladder else "does not exist"
        yield {
            "id": "ladder_old",
            "severity": "warn",
            "title": "Check ladder not climbed since a change",
            "what": f"This server's record {known}; in use is {current['digest']}, driver {found['driver'] or 'none'}.",
            "cause": "The generation or the driver changed after the record was made, or another server installed it.",
            "remedy": f"{site} --tags activation",
        }
        return
    when = datetime.fromtimestamp(ladder["time"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    for rung, check in failed(ladder):
        # The ladder knows no inventory.
        remedy = str(check.get("remedy", "")).replace("ansible-playbook site.yml", site)
        yield {
            "id": f"ladder_{rung}",
            "severity": "stop",
            "title": f"Check ladder failed at {rung}",
            "what": f"{check['name']}: {check.get('reason') or check.get('detail')}.",
            "cause": f"So it was when the ladder was last climbed, on {when}, on this generation and this driver.",
            "remedy": f"{remedy + '; then: ' if remedy else 'When that is mended: '}{site} --tags verify",
        }


def doctor_ordered(findings: list[Finding]) -> list[Finding]:
    """Findings, what stops first."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding["severity"]))


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        return {
            "doctor_asked": doctor_asked,
            "doctor_installed": doctor_installed,
            "doctor_no_commands": no_commands,
            "doctor_ordered": doctor_ordered,
            "doctor_refused": doctor_refused,
            "doctor_server": doctor_server,
        }
