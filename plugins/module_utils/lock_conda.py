"""The closure of a conda package: itself and all that it depends on, as the explicit list of a lock.

Conda itself chooses, the one that the stack installs: the mirror's installer puts it into a throwaway folder, where it
is asked with copies of the channels' indexes, so that it neither reaches nor writes anything else.

Runs on the controller alone: Python >= 3.11, packaging, Linux on x86_64 (as the builder of that installer).
"""

from __future__ import annotations

import bz2
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.lock_values import Files
from ansible.module_utils.stack_fetch import NO_ANSWER, in_mirror, is_url, open_url, resolve, verified, without_secrets
from ansible.module_utils.stack_installs import StackError, built_key
from packaging.utils import canonicalize_name

PLATFORMS = ("linux-64", "noarch")
SUFFIX = ".tar.bz2"
TIMEOUT = 1800.0  # seconds; an index of 2018 is solved in seconds, one of today's in minutes

Record = dict[str, Any]  # an entry of a channel's repodata.json


def find_closure(lock: dict[str, Any], files: Files) -> tuple[dict[str, Any], list[str], list[int]]:
    """({packages, inputs} of a lock's conda channel, lines that say whose word that is, pip's that it has).

    Raises as `closure` does.
    """
    chosen = closure(lock, files.mirror)
    inputs, lines = [], [f"{len(chosen)} packages, which the stack's conda chose"]
    for address, record in chosen:
        try:
            entry, word = files.find_in_channel(address, record)
        except (StackError, *NO_ANSWER) as error:
            raise StackError(f"{dist(record)}, which conda chose: {error}") from error
        inputs.append(entry)
        lines.append(f"{entry['filename']}, sha256 {entry['sha256']}, size {entry['size']}; {word}")
    conda = {canonicalize_name(record["name"]): dist(record) for _address, record in chosen}
    pips = [canonicalize_name(str(item.get("project") or "")) for item in lock["caffe2"]["packages"]]
    twice = [number for number, name in enumerate(pips) if name in conda]
    lines += [f"{pips[number]} is no longer pip's, for conda installs {conda[pips[number]]}" for number in twice]
    return {"packages": [dist(record) for _address, record in chosen], "inputs": inputs}, lines, twice


def closure(lock: dict[str, Any], mirror: Path) -> list[tuple[str, Record]]:
    """(address, record) of each package that conda adds to the environment of role caffe2, in the order of their names.

    Raises StackError with the reason why it cannot be known, NO_ANSWER.
    """
    caffe2 = lock["caffe2"]
    channel = caffe2["channel"]
    wrong = [address for address in channel.get("channels") or [] if not is_url(address)]
    if wrong or not channel.get("channels"):
        raise StackError(f"{wrong or 'channels'}: give each channel as an address (https://, http:// or file://)")
    if strange := [spec for spec in channel["specs"] if not str(spec)[:1].isalnum()]:
        raise StackError(f"specs: {strange[0]!r} names no conda package")
    (mirror / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="conda-", dir=mirror / "tmp") as work:
        conda = Conda(Path(work))
        indexes = [read_index(address) for address in channel["channels"]]
        conda.install(installer(lock["anaconda2"]["installer"], mirror))
        present = conda.packages(caffe2["conda_packages"])
        return conda.solve(present, indexes, [str(spec) for spec in channel["specs"]])


def installer(recipe: dict[str, Any], mirror: Path) -> Path:
    """Path in the mirror of the installer that a lock's recipe builds. Raises StackError where it is not there."""
    artifact = resolve({"filename": recipe["filename"], "built": built_key(recipe)}, str(mirror))
    path = in_mirror(str(mirror), f"built/{artifact['built']}/{artifact['filename']}")
    if not verified(path, artifact):
        raise StackError(f"{path} is damaged. Remove it, and build it: `ansible-playbook playbooks/mirror.yml`")
    return Path(path)


def read_index(address: str) -> dict[str, Record]:
    """{address of a package: its record} of a channel. Raises StackError and NO_ANSWER where it has no index."""
    found: dict[str, Record] = {}
    for platform in PLATFORMS:
        url = f"{address.rstrip('/')}/{platform}/repodata.json"
        try:
            with open_url(url) as answer:
                packages = json.load(answer)["packages"]
        except NO_ANSWER as error:
            absent = getattr(error, "code", 0) == 404 or "No such file" in str(error)
            if platform == "noarch" and absent:
                continue  # channels of 2018 need not have it
            raise StackError(f"{without_secrets(url)}: {error}") from error
        except (KeyError, TypeError) as error:
            raise StackError(f"{without_secrets(url)} is no index of a conda channel") from error
        found |= {f"{address.rstrip('/')}/{platform}/{name}": record for name, record in packages.items()}
    return found


class Conda:
    """A conda in a throwaway folder."""

    def __init__(self, work: Path) -> None:
        self._work, self._prefix = work, work / "conda"

    def install(self, path: Path) -> None:
        """Run the installer."""
        self._run("/bin/sh", str(path), "-b", "-p", str(self._prefix))

    def packages(self, names: list[str]) -> list[Record]:
        """The records of those packages of the installer that an environment is created from."""
        folder = self._prefix / "conda-meta"
        if absent := [name for name in names if not (folder / f"{name}.json").is_file()]:
            has = ", ".join(sorted(path.stem for path in folder.glob("*.json")))
            raise StackError(f"conda_packages names {', '.join(absent)}, but the installer has {has}")
        keys = ("name", "version", "build", "build_number", "depends")
        records = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]
        return [{key: record[key] for key in keys} for record in records]

    def solve(
        self, present: list[Record], indexes: list[dict[str, Record]], specs: list[str]
    ) -> list[tuple[str, Record]]:
        """(address, record) of what `specs` need of the channels, best first, beside the `present` packages."""
        own = {f"/linux-64/{dist(record)}{SUFFIX}": record for record in present}
        folders = [self._copy(number, index) for number, index in enumerate([own, *indexes])]
        settings = {
            "channel_alias": f"file://{self._work}",
            # Without it, conda 4.3 asks its own default channels, even offline, and ends in a traceback.
            "default_channels": folders[:1],
            "channels": folders,
            "offline": True,
        }
        (self._work / "condarc").write_text(json.dumps(settings), encoding="utf-8")
        fixed = [f"{record['name']}={record['version']}={record['build']}" for record in present]
        command = ["create", "--dry-run", "--json", "--yes", "--prefix", str(self._work / "none"), *fixed, *specs]
        said = self._run(
            str(self._prefix / "bin/python"), str(self._prefix / "bin/conda"), *command, check=False, CONDA_OFFLINE="1"
        )
        try:
            answer = json.loads(said)
        except ValueError as error:
            raise StackError(f"conda answered {' '.join(said.split())[-500:]!r}") from error
        if not answer.get("success"):
            raise StackError(f"conda says: {' '.join(str(answer.get('error') or answer).split())}")
        linked = {(item["channel"], item["dist_name"]) for action in answer["actions"] for item in action["LINK"]}
        return sorted(
            (
                (address, record)
                for number, index in enumerate(indexes, 1)
                for address, record in index.items()
                if (f"c{number}", address.rpartition("/")[2].removesuffix(SUFFIX)) in linked
            ),
            key=lambda pair: str(pair[1]["name"]),
        )

    def _copy(self, number: int, index: dict[str, Record]) -> str:
        """Address of a folder that looks like a channel with this index."""
        channel = self._work / f"c{number}"
        for platform in PLATFORMS:
            packages = {}
            for address, record in index.items():
                _channel, where, name = address.rsplit("/", 2)
                if where == platform:
                    packages[name] = record
            folder = channel / platform
            folder.mkdir(parents=True)
            text = json.dumps({"info": {"subdir": platform}, "packages": packages})
            (folder / "repodata.json.bz2").write_bytes(bz2.compress(text.encode(), 1))  # what conda reads in a folder
        return f"file://{channel}"

    def _run(self, *command: str, check: bool = True, **settings: str) -> str:
        """What a program prints, run with nothing of this machine's settings. Raises StackError when it fails."""
        home = self._work / "home"
        home.mkdir(exist_ok=True)
        environment = {"HOME": str(home), "PATH": os.defpath, "LC_ALL": "C.UTF-8", "TMPDIR": str(home)}
        environment |= {"CONDARC": str(self._work / "condarc"), **settings}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=environment,
                cwd=self._work,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"conda of the mirror's installer cannot be run here: {error}") from error
        if check and done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-500:]
            raise StackError(f"the mirror's installer of conda ends with exit status {done.returncode}: {said}")
        return done.stdout


def dist(record: Record) -> str:
    """Conda's name for a package: name-version-build."""
    return f"{record['name']}-{record['version']}-{record['build']}"
