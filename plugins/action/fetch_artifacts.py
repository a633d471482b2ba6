"""Pushes artifacts from a mirror on the controller, and shows progress of what the module downloads."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleActionFail  # noqa: E402
from ansible.module_utils.stack_fetch import export_commit, mirrored_at, resolve  # noqa: E402
from ansible.module_utils.stack_installs import StackError, sha256_of  # noqa: E402
from ansible.module_utils.stack_lease import IDLE, this_run  # noqa: E402
from ansible.module_utils.stack_progress import Progress  # noqa: E402
from ansible.module_utils.stack_push import PIECE, push  # noqa: E402
from ansible.module_utils.stack_transfers import transfer  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

RETRIES = 2
TURN_EVERY = 15.0  # seconds between two lines of waiting
SLICE = 10.0  # seconds that the module works before it reports


class ActionModule(ActionBase):
    """Cache, then the mirror (pushed, a file after the other, where it lies on the controller), then upstream."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        arguments = {**self._task.args, "run": this_run(str(self._vars.get("inventory_hostname")))}
        if self._connection.transport == "ssh":  # each call can be repeated when the connection broke
            self._connection.set_option("reconnection_retries", RETRIES)
        mirror = str(arguments.get("mirror", ""))
        try:
            if not mirror.startswith("controller:"):
                return self._fetch(arguments)
            folder = Path(mirror.partition(":")[2]).expanduser()
            if self._connection.transport == "local":
                return self._fetch({**arguments, "mirror": str(folder)})
            with tempfile.TemporaryDirectory() as exported:
                return self._push_and_fetch(arguments, folder, Path(exported))
        except StackError as error:
            raise AnsibleActionFail(str(error)) from error

    def _module(self, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="fetch_artifacts", module_args=arguments, task_vars=self._vars
        )
        return result

    def _show(self, line: str) -> None:
        if line:
            self._display.display(f"[{self._vars.get('inventory_hostname')}] {line}")

    def _fetch(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call the module until nothing is missing; each call is a slice of time."""
        progress, came, changed = Progress(), 0, False
        files, errors = dict(arguments.get("verified", {})), dict[str, str]()
        origin: dict[str, str] = {}
        while True:
            result = self._module({**arguments, "verified": files, "errors": errors, "seconds": SLICE})
            if result.get("failed") or "missing" not in result:
                return result
            files, errors = result["files"], result["errors"]
            origin.update(result["origin"])
            changed = changed or result["changed"]
            came += result["received"]
            # A git tree has no size that is known before.
            left = sum(item["size"] - item["have"] for item in result["missing"] if "size" in item)
            self._show(progress.line("downloaded", came, left, f"{len(files)} of {len(arguments['artifacts'])} files"))
            if not result["missing"]:
                return {**result, "origin": origin, "changed": changed}

    def _push_and_fetch(self, arguments: dict[str, Any], mirror: Path, exported: Path) -> dict[str, Any]:
        """Push what the controller's mirror has and the server's cache lacks, then let the module do the rest."""
        here: dict[str, Path] = {}
        artifacts = []
        for artifact in arguments["artifacts"]:
            if "commit" in artifact:
                artifact, here[artifact["filename"]] = self._exported(artifact, mirror, exported)
            else:
                artifact = resolve(artifact, str(mirror))
                here[artifact["filename"]] = mirror / mirrored_at(artifact)
            artifacts.append(artifact)
        arguments = {**arguments, "artifacts": artifacts, "mirror": ""}
        whole: set[str] = set()  # pushed from their first byte on
        origin = {}
        progress, came = Progress(), 0
        while True:
            looked = self._module({**arguments, "seconds": 0})
            if looked.get("failed") or "missing" not in looked:
                return looked
            to_push = [artifact for artifact in looked["missing"] if here[artifact["filename"]].is_file()]
            if not to_push:
                break
            for number, artifact in enumerate(to_push):
                name = artifact["filename"]
                # Pushed and still missing: it did not have its sum. Unless another source had begun the part, which
                # the module has removed by now, the mirror's file is wrong.
                if name in whole or here[name].stat().st_size != artifact["size"]:
                    raise StackError(
                        f"{here[name]} in the mirror does not have the size and sha256 that the lock says. "
                        "Remove that file and fill the mirror again: `ansible-playbook playbooks/mirror.yml`."
                    )
                if not artifact["have"]:
                    whole.add(name)
                rest = artifact["size"] - artifact["have"]
                others = sum(item["size"] - item["have"] for item in to_push[number + 1 :])
                for sent in self._push(here[name], artifact, arguments):
                    came, rest = came + sent, rest - sent
                    done = len(looked["files"]) + number + (not rest)
                    self._show(progress.line("pushed", came, rest + others, f"{done} of {len(artifacts)} files"))
                origin[name] = "mirror (pushed from the controller)"
        result = self._fetch({**arguments, "verified": looked["files"]}) if looked["missing"] else looked
        if result.get("failed"):
            return result
        origin = {**looked["origin"], **result["origin"], **origin}
        return {**result, "origin": origin, "changed": result["changed"] or bool(whole)}

    def _exported(self, artifact: dict[str, Any], mirror: Path, exported: Path) -> tuple[dict[str, Any], Path]:
        """A git tree as a tar made on the controller; the tree itself where no repository here has the commit."""
        repositories = [mirror / "git" / artifact["mirrored"], Path(artifact["repository"])]
        found = [str(path) for path in repositories if path.is_dir()]
        tar = exported / artifact["filename"]
        if not found:
            return artifact, tar
        try:
            export_commit(found, artifact["commit"], str(tar), timeout=600)
        except StackError as error:
            if "://" not in artifact["repository"]:
                raise
            self._display.vvv(f"{error} Trying {artifact['repository']} from the server.")
            return artifact, tar
        known = {"filename": artifact["filename"], "sha256": sha256_of(str(tar)), "size": tar.stat().st_size}
        return known, tar

    def _push(self, path: Path, artifact: dict[str, Any], arguments: dict[str, Any]) -> Iterator[int]:
        """Write what is missing of `path` to the part on the server, a piece per remote call; yields bytes gained."""
        beaten = time.monotonic()
        there = artifact["have"]
        again = "run the same command again and it goes on from there"
        with self._turn(path.name, arguments):
            for have in push(self._execute, path, artifact["part"], there, PIECE, again):
                if time.monotonic() - beaten > IDLE / 3:  # a slow line: keep the lease alive
                    beaten = time.monotonic()
                    self._module({**arguments, "artifacts": [], "seconds": 0})
                yield have - there
                there = have

    def _execute(self, command: str, data: bytes) -> dict[str, Any]:
        done: dict[str, Any] = self._low_level_execute_command(command, in_data=data, sudoable=False)
        return done

    def _turn(self, name: str, arguments: dict[str, Any]) -> AbstractContextManager[None]:
        """One of the transfers that the controller makes at once, as soon as there is one."""
        limit, shown, beaten = int(arguments.get("transfers", 0)), 0.0, 0.0

        def waits(seconds: float) -> None:
            nonlocal shown, beaten
            if seconds - shown > TURN_EVERY:
                shown = seconds
                self._display.display(
                    f"[{self._vars.get('inventory_hostname')}] {name}: waits for one of {limit} transfers, "
                    f"{seconds:.0f} s so far"
                )
            if seconds - beaten > IDLE / 3:  # keep the lease alive
                beaten = seconds
                self._module({**arguments, "artifacts": [], "seconds": 0})

        turn: AbstractContextManager[None] = transfer(limit, waits)
        return turn
