"""Filters about the mirror."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleFilterError  # noqa: E402
from ansible.module_utils.stack_installs import objects, unpinned  # noqa: E402

Artifact = dict[str, Any]


def lock_artifacts(lock: Any) -> list[Artifact]:
    """Every file that a lock names, wherever in it, once each and in the order of their names."""
    problems = unpinned(lock)
    if problems:
        raise AnsibleFilterError(" ".join(problems))
    files = [entry for _where, entry in objects(lock, "") if "filename" in entry and "source" in entry]
    return [file for _key, file in sorted({(file["filename"], file["sha256"]): file for file in files}.items())]


def licence_lines(artifacts: list[Artifact]) -> list[str]:
    """A line per licence: its files' number, size and names."""
    lines = []
    for licence in sorted({item["licence"] for item in artifacts}):
        items = [item for item in artifacts if item["licence"] == licence]
        names = ", ".join(item.get("project") or item["filename"].partition("_")[0] for item in items)
        lines.append(f"{licence}: {names} ({sum(item['size'] for item in items) / 1e6:.1f} MB)")
    return lines


def mirror_sources(results: list[dict[str, Any]], standin_expect: dict[str, Any]) -> dict[str, Any]:
    """Variables that make site.yml use what the mirror has where an upstream did not answer.

    `results`: of the module mirror_repository, each with "item" (role name) and "record".
    """
    chosen: dict[str, Any] = {}
    for result in results:
        role, record = result["item"], result["record"]
        if not record["upstream"]:
            chosen[f"{role}_repository"] = PurePath(record["path"]).name
            chosen[f"{role}_commit"] = record["commit"]
            if role == "detectron":
                chosen["detectron_expect"] = standin_expect
    return chosen


def standin_lines(results: list[dict[str, Any]]) -> list[str]:
    """A sentence per repository that could not be reached: why, and what takes its place."""
    instead = {
        "cocoapi": "its real code out of the package pycocotools takes its place",
        "detectron": "A STAND-IN takes its place: written for this project, on the real Caffe2, good for trying the "
        "installation and nothing else",
    }
    return [
        f"{result['item']}: its repository could not be reached ({result['record']['why']}); "
        f"{instead[result['item']]} (commit {result['record']['commit']})."
        for result in results
        if not result["record"]["upstream"]
    ]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        return {
            "lock_artifacts": lock_artifacts,
            "licence_lines": licence_lines,
            "mirror_sources": mirror_sources,
            "standin_lines": standin_lines,
        }
