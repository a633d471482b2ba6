"""Pushes the images of an inference that its server does not have yet, many at a time."""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_installs import sha256_of  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

PIECE = 16 << 20  # bytes pushed by one remote call, or one image


def pieces(folder: Path, images: list[dict[str, Any]]) -> Iterator[tuple[int, bytes]]:
    """(how many images, a tar of them) again and again, by their names in the run."""
    while images:
        packed, count = io.BytesIO(), 0
        with tarfile.open(fileobj=packed, mode="w") as tar:
            while images and (not count or packed.tell() + images[0]["size"] < PIECE):
                image = images[0]
                entry = tarfile.TarInfo(image["file"])
                data = (folder / image["name"]).read_bytes()
                entry.size, entry.mode = len(data), 0o600
                tar.addfile(entry, io.BytesIO(data))
                images, count = images[1:], count + 1
        yield count, packed.getvalue()


class ActionModule(ActionBase):
    """The module says what is missing; that is pushed, and looked at again."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        folder = Path(str(arguments["source"]))
        if not arguments.get("on_server"):
            images = [{**image, "sha256": sha256_of(str(folder / image["name"]))} for image in arguments["images"]]
            arguments["images"] = images
        looked = self._ask(arguments, task_vars)
        if looked.get("failed") or not looked.get("missing") or self._task.check_mode:
            return looked
        wanted = [image for image in arguments["images"] if image["file"] in looked["missing"]]
        target, done = f"{arguments['folder']}/images", 0
        for count, data in pieces(folder, wanted):
            command = f"tar -x -o -f - -C {shlex.quote(target)}"
            said = self._low_level_execute_command(command, in_data=data, sudoable=False)
            if said["rc"]:
                why = said["stderr"].strip() or "the connection broke"
                return {"failed": True, "msg": f"Images could not be pushed to {target}: {why}. Run it again."}
            done += count
            server = (task_vars or {}).get("inventory_hostname")
            self._display.display(f"[{server}] pushed {done} of {len(wanted)} images")
        again = self._ask(arguments, task_vars)
        if again.get("missing"):
            left = ", ".join(again["missing"][:5])
            return {"failed": True, "msg": f"Images changed while they were pushed ({left}). Run it again."}
        return {**again, "changed": True}

    def _ask(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="infer_images", module_args=arguments, task_vars=task_vars
        )
        return result
