"""Pushes artifacts from a mirror on the controller, and shows progress of what the module downloads."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleActionFail  # noqa: E402
from ansible.module_utils.stack_fetch import export_commit, mirrored_at, verified  # noqa: E402
from ansible.module_utils.stack_installs import StackError, sha256_of  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

PIECE = 16 << 20  # bytes pushed by one remote call
SHOW_EVERY = 5.0  # seconds between two lines of progress
SLICE = 10.0  # seconds that the module works before it reports


class ActionModule(ActionBase):
    """One artifact after the other: cache, then the mirror (pushed where it lies on the controller), then upstream."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._started = self._shown = time.monotonic()
        self._named = ""  # the artifact that the last line was about
        arguments = dict(self._task.args)
        mirror = str(arguments.get("mirror", ""))
        try:
            if not mirror.startswith("controller:"):
                return self._fetch(arguments)
            folder = Path(mirror.partition(":")[2])
            if self._connection.transport == "local":
                return self._fetch({**arguments, "mirror": str(folder) if folder.is_dir() else ""})
            with tempfile.TemporaryDirectory() as exported:
                return self._push(arguments, folder, Path(exported))
        except StackError as error:
            raise AnsibleActionFail(str(error)) from error

    def _module(self, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="fetch_artifacts", module_args=arguments, task_vars=self._vars
        )
        return result

    def _show(self, name: str, have: int, size: int, verb: str, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._shown < SHOW_EVERY and not (last and self._named == name):
            return
        self._named = name
        self._shown = now
        self._display.display(
            f"[{self._vars.get('inventory_hostname')}] {name}: {verb} {have / 1e6:.0f} of {size / 1e6:.0f} MB "
            f"({100 * have // max(size, 1)} %), {now - self._started:.0f} s"
        )

    def _fetch(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call the module until nothing is missing; each call is a slice of time."""
        origin: dict[str, str] = {}
        changed = False
        verified_files = dict(arguments.get("verified", {}))
        while True:
            result = self._module({**arguments, "verified": verified_files, "seconds": SLICE})
            if result.get("failed") or "missing" not in result:
                return result
            verified_files = result["files"]
            origin.update(result["origin"])
            changed = changed or result["changed"]
            if not result["missing"]:
                return {**result, "origin": origin, "changed": changed}
            first = result["missing"][0]
            self._show(first["filename"], first.get("have", 0), first.get("size", 0), "downloaded", last=True)

    def _push(self, arguments: dict[str, Any], mirror: Path, exported: Path) -> dict[str, Any]:
        """Push what the controller's mirror has and the server's cache lacks, then let the module do the rest."""
        here: dict[str, Path] = {}
        artifacts = []
        for artifact in arguments["artifacts"]:
            if "commit" in artifact:
                artifact = self._exported(artifact, mirror, exported)
            elif "built" in artifact:
                artifact = self._recorded(artifact, mirror)
            artifacts.append(artifact)
            if "sha256" in artifact:
                here[artifact["filename"]] = artifact.get("here") or mirror / mirrored_at(artifact)
        artifacts = [{k: v for k, v in artifact.items() if k != "here"} for artifact in artifacts]
        arguments = {**arguments, "artifacts": artifacts, "mirror": ""}
        looked = self._module({**arguments, "seconds": 0})
        if looked.get("failed") or "missing" not in looked:
            return looked
        pushed = {}
        for artifact in looked["missing"]:
            name = artifact["filename"]
            path = here.get(name)
            if path is None or not path.is_file():
                continue
            if not verified(str(path), artifact):
                raise StackError(
                    f"{path} in the mirror does not have the sha256 {artifact['sha256']} that it should have. "
                    "Remove that file and fill the mirror again: `ansible-playbook playbooks/mirror.yml`."
                )
            self._push_file(path, artifact)
            pushed[name] = "mirror (pushed from the controller)"
        result = self._fetch({**arguments, "verified": looked["files"]})
        if result.get("failed"):
            return result
        return {**result, "origin": {**result["origin"], **pushed}, "changed": result["changed"] or bool(pushed)}

    def _exported(self, artifact: dict[str, Any], mirror: Path, exported: Path) -> dict[str, Any]:
        """A git tree as a tar made on the controller; the artifact itself where no repository here has the commit."""
        repositories = [mirror / "git" / artifact["mirrored"], Path(artifact["repository"])]
        found = [str(path) for path in repositories if path.is_dir()]
        if not found:
            return artifact
        tar = exported / artifact["filename"]
        try:
            export_commit(found, artifact["commit"], str(tar), timeout=600)
        except StackError as error:
            if "://" not in artifact["repository"]:
                raise
            self._display.vvv(f"{error} Trying {artifact['repository']} from the server.")
            return artifact
        sizes = {"sha256": sha256_of(str(tar)), "size": tar.stat().st_size}
        return {"filename": artifact["filename"], "here": tar, **sizes}

    def _recorded(self, artifact: dict[str, Any], mirror: Path) -> dict[str, Any]:
        """A built artifact with what the mirror recorded of its file."""
        record = mirror / "built" / artifact["built"] / "artifact.json"
        if not record.is_file():
            raise StackError(
                f"{artifact['filename']} is built, not downloaded, and the mirror {mirror} does not have it for this "
                "recipe and these inputs. Build it: `ansible-playbook playbooks/mirror.yml`."
            )
        known = json.loads(record.read_text())
        return {**artifact, "sha256": known["sha256"], "size": known["size"]}

    def _push_file(self, path: Path, artifact: dict[str, Any]) -> None:
        """Append what is missing of `path` to the part on the server, a piece per remote call."""
        part, have = artifact["part"], artifact["have"]
        with path.open("rb") as stream:
            stream.seek(have)
            while piece := stream.read(PIECE):
                done = self._low_level_execute_command(f"cat >> {shlex.quote(part)}", in_data=piece, sudoable=False)
                if done["rc"]:
                    raise StackError(
                        f"{path.name} could not be pushed: {(done['stderr'] or 'the connection broke').strip()}. "
                        f"{os.path.dirname(part)} has {have / 1e6:.0f} of {artifact['size'] / 1e6:.0f} MB; "
                        "run the same command again and it goes on from there."
                    )
                have += len(piece)
                self._show(path.name, have, artifact["size"], "pushed", last=have == artifact["size"])
