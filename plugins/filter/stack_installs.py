"""Filters about the installs of a stack."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleFilterError  # noqa: E402
from ansible.module_utils.stack_installs import digest, unpinned  # noqa: E402


def wanted_installs(specs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a stack wants installed, from each role's spec.

    `specs`: {role: {"version": str, "recipe": int, "inputs": {...}, "requires": [role, ...]}}. Returns the same
    keys, each with "digest" (12 hex digits over version, recipe, inputs and the digests of what it is built
    against) and "path" (relative to the prefix), in an order in which they can be built.
    """
    problems = unpinned(specs) or [
        f"The version of {role} in the lock, {spec['version']!r}, cannot be the name of a folder."
        for role, spec in specs.items()
        if not re.fullmatch(r"\w[\w.+-]*", str(spec["version"]), re.ASCII)
    ]
    if problems:
        raise AnsibleFilterError(" ".join(problems))
    unknown = {need for spec in specs.values() for need in spec["requires"]} - specs.keys()
    if unknown:
        raise AnsibleFilterError(
            f"No role of this play defines the install {', '.join(sorted(unknown))}: list all roles of "
            "playbooks/servers.yml and choose with --tags."
        )
    try:
        order = list(TopologicalSorter({role: spec["requires"] for role, spec in specs.items()}).static_order())
    except CycleError as error:
        raise AnsibleFilterError(f"Installs that require each other: {error.args[1]}") from error
    wanted: dict[str, dict[str, Any]] = {}
    for role in order:
        spec = specs[role]
        identity = digest(
            {
                "role": role,
                "version": spec["version"],
                "recipe": spec["recipe"],
                "inputs": spec["inputs"],
                "requires": {need: wanted[need]["digest"] for need in spec["requires"]},
            }
        )
        wanted[role] = {**spec, "role": role, "digest": identity, "path": f"opt/{role}/{spec['version']}-{identity}"}
    return wanted


def built_key(recipe: dict[str, Any]) -> str:
    """Identity of a built artifact: digest over its recipe's name and version and the sums of its inputs.

    `recipe`: {"name": str, "version": int, "inputs": [{"filename": str, "sha256": str}, ...]}.
    """
    sums = sorted((item["filename"], item["sha256"]) for item in recipe["inputs"])
    return str(digest({"name": recipe["name"], "version": recipe["version"], "inputs": sums}))


def pip_requirements(packages: list[dict[str, Any]], files: dict[str, str]) -> str:
    """Lines of a requirements file that names each package's file with its sha256. `files`: {filename: path}."""
    return "".join(f"{files[item['filename']]} --hash=sha256:{item['sha256']}\n" for item in packages)


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        return {
            "wanted_installs": wanted_installs,
            "built_key": built_key,
            "pip_requirements": pip_requirements,
            "stack_digest": digest,
        }
