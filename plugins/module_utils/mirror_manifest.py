"""The manifest of a mirror: what it holds, where that came from, and whether it still holds that.

`manifest.json` lies beside what it lists, with paths relative to the mirror, so that a copy of the folder is a mirror:

    files: filename, sha256, size, licence, origin, stacks
    built: folder, filename, sha256, size, recipe, version, inputs {filename: sha256}, stacks
    git:   path, commit, origin, upstream (whether that is the lock's repository), why (it is not), stacks

Runs on the controller, which has what wrote the mirror: standard library and git.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from ansible.module_utils.stack_fetch import MANIFEST, ORIGIN, git, listed, location
from ansible.module_utils.stack_installs import StackError, digest, read_json, sha256_of

Manifest = dict[str, list[dict[str, Any]]]

# What tells one entry from another.
IDENTITY = {"files": ("filename", "sha256"), "built": ("folder",), "git": ("path", "commit")}
UNKNOWN = "not recorded"  # fetched by a version that did not write it down


def place_of(kind: str, entry: dict[str, Any]) -> str:
    """Path of an entry relative to the mirror."""
    if kind == "files":
        return str(location(entry))
    return f"built/{entry['folder']}" if kind == "built" else str(entry["path"])


def merged(old: Manifest, stack: str, new: Manifest, there: Callable[[str], bool]) -> Manifest:
    """`old` after a run that mirrored `stack`, which needs `new`.

    What other stacks need stays; what no stack needs any more stays listed as long as it is `there`. Where a file came
    from is known from the run that fetched it: a later one finds it in the mirror.
    """
    result: Manifest = {}
    for kind, keys in IDENTITY.items():
        entries = {}
        for entry in old.get(kind, []):
            if "stacks" in entry:
                others = [name for name in entry["stacks"] if name != stack]
                entries[tuple(entry[key] for key in keys)] = {**entry, "stacks": others}
        for entry in new[kind]:
            identity = tuple(entry[key] for key in keys)
            before = entries.get(identity, {})
            entries[identity] = {**entry, "stacks": sorted({*before.get("stacks", []), stack})}
            if not entry.get("origin", True):
                entries[identity]["origin"] = before.get("origin") or UNKNOWN
        listed = [entries[identity] for identity in sorted(entries)]
        result[kind] = [entry for entry in listed if entry["stacks"] or there(place_of(kind, entry))]
    return result


class Check:
    """Reads all of a mirror; changes nothing."""

    def __init__(self, mirror: str, show: Callable[[int, int, str], None]) -> None:
        """`show` is told bytes read, bytes to read, and how many files are done."""
        self.mirror, self._show = mirror, show
        self._manifest = read_json(os.path.join(mirror, MANIFEST))
        if not self._manifest:
            raise StackError(f"{mirror} is no mirror: it has no {MANIFEST} that can be read.")
        self._files = self._places()
        self._sizes = {path: os.path.getsize(os.path.join(mirror, path)) for path in self._files}
        self._read: list[str] = []

    @property
    def summary(self) -> str:
        """What was read."""
        kinds = {kind: len(self._manifest.get(kind, [])) for kind in IDENTITY}
        return (
            f"{len(self._files)} files, {sum(self._sizes.values()) / 1e6:.0f} MB, {kinds['built']} of them built here; "
            f"{kinds['git']} commits of git repositories"
        )

    def problems(self) -> list[str]:
        """A sentence for each thing that is not as it was."""
        return [*self._fetched(), *self._built(), *self._git()]

    def _places(self) -> list[str]:
        """Every file that has a sum, relative to the mirror; what is unfinished has none."""
        found = []
        for top in ("sha256", "built"):
            for folder in sorted(_names(os.path.join(self.mirror, top))):
                for name in sorted(_names(os.path.join(self.mirror, top, folder))):
                    path = f"{top}/{folder}/{name}"
                    unfinished = (
                        name.startswith(".") or name.endswith((".part", ".new", ORIGIN)) or name == "artifact.json"
                    )
                    if not unfinished and os.path.isfile(os.path.join(self.mirror, path)):
                        found.append(path)
        return found

    def _sum(self, path: str) -> str:
        """Sum of a file, relative to the mirror."""
        found = sha256_of(os.path.join(self.mirror, path))
        self._read.append(path)
        read = sum(self._sizes[name] for name in self._read)
        self._show(read, sum(self._sizes.values()) - read, f"{len(self._read)} of {len(self._files)} files")
        return str(found)

    def _fetched(self) -> Iterator[str]:
        there = [path for path in self._files if path.startswith("sha256/")]
        for entry in self._manifest.get("files", []):
            if location(entry) not in there:
                yield f"{location(entry)} is missing."
        for path in there:
            expected, actual = path.split("/")[1], self._sum(path)
            if actual != expected:
                yield f"{path} has the sha256 {actual}, not that of its folder."

    def _built(self) -> Iterator[str]:
        there = [path for path in self._files if path.startswith("built/")]
        entries = {entry.get("folder", ""): entry for entry in self._manifest.get("built", [])}
        for folder, entry in entries.items():
            if f"built/{folder}/{entry['filename']}" not in there:
                yield f"built/{folder}/{entry['filename']} is missing."
        for path in there:
            _top, folder, name = path.split("/")
            record = read_json(os.path.join(self.mirror, "built", folder, "artifact.json"))
            actual = self._sum(path)
            if not record:
                yield f"built/{folder} has no artifact.json that can be read."
                continue
            key = digest(
                {
                    "name": record.get("recipe"),
                    "version": record.get("version"),
                    "inputs": sorted(record.get("inputs", {}).items()),
                }
            )
            if key != folder:
                yield f"built/{folder}/artifact.json names another recipe, or other inputs, than its folder is for."
            if name != record.get("filename") or actual != record.get("sha256"):
                yield f"{path} has the sha256 {actual}, which is not what artifact.json beside it says."
            if folder not in entries:
                yield f"built/{folder} is not in {MANIFEST}: the run that built it did not end."
            elif not listed(self._manifest, folder, record):
                yield f"built/{folder}/artifact.json is not what {MANIFEST} says: one of both was edited."

    def _git(self) -> Iterator[str]:
        checked: dict[str, str] = {}
        for entry in self._manifest.get("git", []):
            path = os.path.join(self.mirror, entry["path"])
            if not os.path.isdir(path):
                yield f"{entry['path']} is missing."
                continue
            if path not in checked:
                checked[path] = git(path, "fsck", "--full", "--no-dangling", "--no-progress")
                if checked[path]:
                    yield f"{entry['path']} is damaged (remove that folder): {checked[path]}."
            said = git(path, "archive", "--format=tar", f"--output={os.devnull}", entry["commit"])
            if said and not checked[path]:
                yield f"{entry['path']} does not have the commit {entry['commit']}: {said}."


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
