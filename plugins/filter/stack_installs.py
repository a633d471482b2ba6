"""Filters about the installs of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_installs import built_key, digest  # noqa: E402


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
