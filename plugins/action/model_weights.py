"""Brings a model's weights into a server's cache: a file of the controller, of a mirror, or of an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleActionFail  # noqa: E402
from ansible.module_utils.model_zoo import artifact_of, md5_in, mirrored_at  # noqa: E402
from ansible.module_utils.stack_fetch import is_url  # noqa: E402
from ansible.module_utils.stack_installs import StackError, sha256_of  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

NETWORK = ("upstream", "transfers", "proxy", "no_proxy", "ca_bundle")
HERE = "controller:"


def of_the_controller(path: Path, md5: str) -> dict[str, Any]:
    """The artifact of a file of this machine. Raises StackError."""
    if not path.is_file():
        raise StackError(
            f"There are no weights {path} on this machine. infer_weights is a file of this machine or an address "
            "(https://…); for a file that lies on the servers already, give infer_weights_on_server."
        )
    if md5 and sha256_of(str(path), "md5") != md5.lower():
        raise StackError(f"{path} does not have the md5 {md5} (infer_weights_md5): it is damaged, or another file.")
    known = {"filename": path.name, "sha256": sha256_of(str(path)), "size": path.stat().st_size}
    return {**known, "mirrored_at": str(path)}


def of_the_mirror(folder: Path, address: str, md5: str) -> dict[str, Any]:
    """The artifact of an address, out of a mirror of the controller; {} where it is not there. Raises StackError."""
    path = folder / mirrored_at(address)
    beside = path.with_name(f"{path.name}.md5sum")
    if not path.is_file() or not (md5 or beside.is_file()):
        return {}
    try:
        stated = md5.lower() or md5_in(beside.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise StackError(f"{beside} {error}. Fetch it anew.") from error
    if sha256_of(str(path), "md5") != stated:
        raise StackError(
            f"{path} in the mirror does not have the md5 {stated} that {'infer_weights_md5' if md5 else beside.name} "
            "says: it is damaged or cut short. Fetch it anew."
        )
    known: dict[str, Any] = artifact_of(address, stated, path.stat().st_size)
    return known


class ActionModule(ActionBase):
    """What the file is, is found out here or by the module; fetch_artifacts pushes or downloads it."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        weights, md5 = str(arguments["weights"]), str(arguments.get("md5", ""))
        mirror = str(arguments.get("mirror", ""))
        try:
            if not is_url(weights):
                arguments["artifact"], mirror = of_the_controller(Path(weights).expanduser().resolve(), md5), f"{HERE}/"
            elif mirror.startswith(HERE):
                folder = Path(mirror.partition(":")[2]).expanduser()
                arguments["artifact"] = of_the_mirror(folder, weights, md5)
        except StackError as error:
            raise AnsibleActionFail(str(error)) from error
        asked = {**arguments, "mirror": "" if mirror.startswith(HERE) else mirror}
        known: dict[str, Any] = self._execute_module(
            module_name="model_weights", module_args=asked, task_vars=task_vars
        )
        if known.get("failed") or known["cached"] or self._task.check_mode:
            return {**known, "changed": not known.get("cached", True)}
        artifact = known["artifact"]
        result = self._fetch(
            {
                "artifacts": [artifact],
                "cache": arguments["cache"],
                "mirror": mirror,
                **{key: arguments[key] for key in NETWORK if key in arguments},
            },
            task_vars,
        )
        if result.get("failed"):
            return result
        return {**known, "path": result["files"][artifact["filename"]], "changed": True}

    def _fetch(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """The result of another action plugin, with its progress and resuming."""
        task = self._task.copy()
        task.args = arguments
        action = self._shared_loader_obj.action_loader.get(
            "fetch_artifacts",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        result: dict[str, Any] = action.run(task_vars=task_vars)
        return result
