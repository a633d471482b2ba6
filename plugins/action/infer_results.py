"""Brings the pictures of an inference home, many at a time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_installs import sha256_of  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

PIECE = 8 << 20  # bytes that one remote call brings, or one file
BEGIN = "-- files --"  # after what a login may say


def batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Names, as many at a time as one call brings."""
    batch: list[str] = []
    left = PIECE
    for name, size in sizes.items():
        if batch and size > left:
            yield batch
            batch, left = [], PIECE
        batch.append(name)
        left -= size
    if batch:
        yield batch


def local_name(name: str) -> str:
    """Where a file of a run lies at home: pictures beside results.json."""
    return os.path.basename(name)


def stale(folder: Path, wanted: set[str]) -> list[Path]:
    """Pictures of an earlier run that this one has not: what its results.json names, and nothing else."""
    try:
        images = json.loads((folder / "results.json").read_text(encoding="utf-8"))["images"]
        named = {name for image in images for name in [*image["pictures"], image.get("small", "")] if name}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    plain = {name for name in named if isinstance(name, str) and name == os.path.basename(name)}
    return [folder / name for name in sorted(plain - wanted) if (folder / name).is_file()]


class ActionModule(ActionBase):
    """The module lists; what is not there yet is packed in base64, since a command's output is text."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        home = Path(str(arguments["to"])).expanduser()
        listed: dict[str, Any] = self._execute_module(
            module_name="infer_results", module_args=arguments, task_vars=task_vars
        )
        if listed.get("failed") or not listed.get("files"):
            return listed
        files = listed["files"]
        lacking = {
            name: known["size"]
            for name, known in files.items()
            if not (home / local_name(name)).is_file() or sha256_of(str(home / local_name(name))) != known["sha256"]
        }
        old = stale(home, {local_name(name) for name in files})
        if not self._task.check_mode:
            home.mkdir(parents=True, exist_ok=True)
            for path in old:
                path.unlink()
            for batch in batches(lacking):
                if why := self._bring(str(arguments["folder"]), batch, files, home):
                    return {"failed": True, "msg": f"The results could not be brought home: {why}. Run it again."}
        return {**listed, "changed": bool(lacking or old), "brought": len(lacking), "to": str(home)}

    def _bring(self, folder: str, names: list[str], files: Mapping[str, Any], home: Path) -> str:
        """Bring some files, each by rename; returns why it did not work, or an empty string."""
        # One line of base64 for each file, in their order.
        words = " ".join(shlex.quote(f"{folder}/{name}") for name in names)
        command = f"echo '{BEGIN}'; for file in {words}; do base64 -w 0 \"$file\" || exit; echo; done"
        said = self._low_level_execute_command(command, sudoable=False)
        if said["rc"]:
            return said["stderr"].strip() or "the connection broke"
        lines = said["stdout"].partition(BEGIN)[2].split("\n")[1:]
        for name, line in zip(names, lines, strict=False):
            try:
                data = base64.b64decode(line.strip(), validate=True)
            except (binascii.Error, ValueError):
                return f"{name} came damaged"
            if hashlib.sha256(data).hexdigest() != files[name]["sha256"]:
                return f"{name} changed meanwhile, or came damaged"
            new = home / f"{local_name(name)}.new"
            new.write_bytes(data)
            new.replace(home / local_name(name))
        return ""
