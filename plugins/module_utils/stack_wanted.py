"""What a stack wants installed: each role's spec with its identity. Python >= 3.9, standard library only."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ansible.module_utils.stack_installs import StackError, digest, unpinned


def _bytes_of(inputs: Any) -> Any:
    """`inputs` without the addresses of files whose sum is there: another address gives the same bytes."""
    if isinstance(inputs, dict):
        return {key: _bytes_of(value) for key, value in inputs.items() if key != "urls" or "sha256" not in inputs}
    return [_bytes_of(item) for item in inputs] if isinstance(inputs, list) else inputs


def wanted_installs(specs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a stack wants installed, from each role's spec.

    `specs`: {role: {"version": str, "recipe": int, "inputs": {...}, "requires": [role, ...]}}. Returns the same
    keys, each with "digest" (12 hex digits over version, recipe, inputs and the digests of what it is built
    against) and "path" (relative to the prefix), in an order in which they can be built. Raises StackError.
    """
    problems = unpinned(specs) or [
        f"The version of {role} in the lock, {spec['version']!r}, cannot be the name of a folder."
        for role, spec in specs.items()
        if not re.fullmatch(r"\w[\w.+-]*", str(spec["version"]), re.ASCII)
    ]
    if problems:
        raise StackError(" ".join(problems))
    unknown = {need for spec in specs.values() for need in spec["requires"]} - specs.keys()
    if unknown:
        raise StackError(
            f"No role of this play defines the install {', '.join(sorted(unknown))}: list all roles of "
            "playbooks/servers.yml and choose with --tags."
        )
    try:
        order = list(TopologicalSorter({role: spec["requires"] for role, spec in specs.items()}).static_order())
    except CycleError as error:
        raise StackError(f"Installs that require each other: {error.args[1]}") from error
    wanted: dict[str, dict[str, Any]] = {}
    for role in order:
        spec = specs[role]
        identity = digest(
            {
                "role": role,
                "version": spec["version"],
                "recipe": spec["recipe"],
                "inputs": _bytes_of(spec["inputs"]),
                "requires": {need: wanted[need]["digest"] for need in spec["requires"]},
            }
        )
        wanted[role] = {**spec, "role": role, "digest": identity, "path": f"opt/{role}/{spec['version']}-{identity}"}
    return wanted
