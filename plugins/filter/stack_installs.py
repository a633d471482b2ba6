"""Filters about the installs of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_installs import digest  # noqa: E402


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
            "built_key": built_key,
            "pip_requirements": pip_requirements,
            "stack_digest": digest,
        }
