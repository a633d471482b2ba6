"""Installs of a prefix: `opt/<role>/<version>-<digest>/`, immutable and read-only once published.

An install is built at its final path (a conda prefix cannot be moved) and counts as published only when
`receipt.json` exists in it, which is written last, by rename. `manifest.json` beside it records every path:

    {"<relative path>": [type, mode, size, mtime_ns, sha256 or link target]}   type: "file" | "link" | "dir"

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import Any, Iterator

RECEIPT = "receipt.json"
MANIFEST = "manifest.json"
MARKER = ".stack.json"
SCHEMA = 1

Manifest = dict[str, list[Any]]


class StackError(Exception):
    """A failure with its cause and remedy in one sentence or two, for the person at the terminal."""


def canonical(data: object) -> bytes:
    """JSON bytes that are the same for equal data on every machine."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(data: object) -> str:
    """First 12 hex digits of the sha256 over `data`: the identity of an install or a generation."""
    return hashlib.sha256(canonical(data)).hexdigest()[:12]


def sha256_of(path: str) -> str:
    """Hex sha256 of a file's bytes."""
    sums = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            sums.update(chunk)
    return sums.hexdigest()


def write_json(path: str, data: object) -> None:
    """Write `data` to `path` by rename: readers see the old content or the new one, never a half."""
    temporary = f"{path}.{os.getpid()}.new"
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(data, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def read_json(path: str) -> Any | None:
    """The content of a JSON file; None where it is absent or not JSON."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _entries(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and lstat of everything below `root`, the receipt and the manifest left out."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as found:
            for entry in found:
                path = os.path.join(folder, entry.name)
                if path in (RECEIPT, MANIFEST):
                    continue
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def _describe(info: os.stat_result) -> list[Any]:
    """[type, mode, size, mtime_ns] as the manifest has it; a folder's and a link's size and time say nothing."""
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISREG(info.st_mode):
        return ["file", mode, info.st_size, info.st_mtime_ns]
    if stat.S_ISLNK(info.st_mode):
        return ["link", 0, 0, 0]
    if stat.S_ISDIR(info.st_mode):
        return ["dir", mode, 0, 0]
    return ["special", mode, 0, 0]


def scan(root: str) -> Manifest:
    """The manifest of `root`, contents hashed. Raises StackError for sockets, devices and pipes."""
    manifest: Manifest = {}
    for path, info in _entries(root):
        entry = _describe(info)
        full = os.path.join(root, path)
        if entry[0] == "special":
            raise StackError(f"{full} is neither a file, a folder nor a link; an install holds nothing else.")
        content = sha256_of(full) if entry[0] == "file" else os.readlink(full) if entry[0] == "link" else ""
        manifest[path] = [*entry, content]
    return manifest


def differences(root: str, manifest: Manifest, deep: bool) -> list[str]:
    """What of `root` is not as its manifest says: by stat alone, or (`deep`) by content as well."""
    found = []
    for path, expected in manifest.items():
        full = os.path.join(root, path)
        try:
            info = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            found.append(f"{path} is missing")
            continue
        actual = _describe(info)
        if actual != expected[:4]:
            names = ("type", "mode", "size", "time")
            what = next(name for name, a, b in zip(names, actual, expected) if a != b)
            found.append(f"{path} has another {what}")
        elif expected[0] == "link" and os.readlink(full) != expected[4]:
            found.append(f"{path} points elsewhere")
        elif deep and expected[0] == "file":
            try:
                if sha256_of(full) != expected[4]:
                    found.append(f"{path} has other content")
            except OSError as error:
                found.append(f"{path} cannot be read ({error.strerror})")
    return found


def install_state(root: str, deep: bool = False) -> dict[str, Any]:
    """State of one install: {"state": "present" | "absent" | "damaged", "why": str}."""
    receipt = read_json(os.path.join(root, RECEIPT))
    if receipt is None:
        why = "started but never finished" if os.path.lexists(root) else "not installed"
        return {"state": "absent", "why": why}
    path = os.path.join(root, MANIFEST)
    manifest = read_json(path)
    if manifest is None or sha256_of(path) != receipt.get("manifest_sha256"):
        return {"state": "damaged", "why": f"{MANIFEST} is missing or altered"}
    wrong = differences(root, manifest, deep)
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return {"state": "damaged", "why": "; ".join(wrong[:3]) + rest}
    return {"state": "present", "why": f"{len(manifest)} paths as recorded"}


def make_read_only(root: str) -> None:
    """Take write permission, setuid and setgid from everything below and including `root`."""
    for path, info in _entries(root):
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(os.path.join(root, path), stat.S_IMODE(info.st_mode) & 0o1555)
    os.chmod(root, 0o555)


def remove_tree(path: str) -> None:
    """Remove a file or a folder, read-only ones too. Nothing there is fine."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
        return
    if not os.path.isdir(path):
        return
    os.chmod(path, 0o700)
    with os.scandir(path) as found:
        for entry in list(found):
            remove_tree(entry.path)
    os.rmdir(path)


def publish(root: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Make the finished folder `root` an install: read-only, manifest, receipt last. Returns the receipt."""
    make_read_only(root)
    manifest = scan(root)
    os.chmod(root, 0o755)
    write_json(os.path.join(root, MANIFEST), manifest)
    receipt = {
        **facts,
        "schema": SCHEMA,
        "paths": len(manifest),
        "bytes": sum(entry[2] for entry in manifest.values()),
        "manifest_sha256": sha256_of(os.path.join(root, MANIFEST)),
    }
    os.chmod(os.path.join(root, MANIFEST), 0o444)
    write_json(os.path.join(root, RECEIPT), receipt)
    os.chmod(os.path.join(root, RECEIPT), 0o444)
    os.chmod(root, 0o555)
    return receipt


def owner_of(prefix: str) -> str | None:
    """Name of the stack that owns `prefix`; None where the prefix is absent or empty.

    Raises StackError for a folder that holds anything else: nothing of somebody else's is ever touched.
    """
    if not os.path.lexists(prefix):
        return None
    if not os.path.isdir(prefix):
        raise StackError(f"{prefix} is not a folder. Set stack_prefix to a folder of its own.")
    marker = read_json(os.path.join(prefix, MARKER))
    if isinstance(marker, dict) and "stack" in marker:
        return str(marker["stack"])
    if os.listdir(prefix):
        raise StackError(
            f"{prefix} is not empty and was not made by this project (it has no {MARKER}). "
            "Set stack_prefix to a folder that is new, empty, or this stack's own."
        )
    return None


def check_owner(prefix: str, stack: str) -> None:
    """Raise StackError unless `prefix` is free or already belongs to `stack`."""
    owner = owner_of(prefix)
    if owner not in (None, stack):
        raise StackError(
            f"{prefix} belongs to stack {owner}, not {stack}. One prefix holds one stack: "
            "leave stack_prefix at its default, which ends in the stack's name, or name another folder."
        )


def claim(prefix: str, stack: str) -> None:
    """Make `prefix` this stack's own: its folders and its marker. Raises StackError as check_owner does."""
    check_owner(prefix, stack)
    marker = os.path.join(prefix, MARKER)
    if not os.path.exists(marker):
        os.makedirs(prefix, exist_ok=True)
        write_json(marker, {"stack": stack, "schema": SCHEMA})
    for folder in ("opt", "generations", "checks", "var/tmp", "var/cache", "var/log", "var/lease", "var/home"):
        os.makedirs(os.path.join(prefix, folder), exist_ok=True)


def garbage(prefix: str) -> str:
    """A new name below `var/tmp` for what is renamed aside before it is removed."""
    return os.path.join(prefix, "var", "tmp", f"garbage-{os.urandom(6).hex()}")
