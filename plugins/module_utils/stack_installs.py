"""Installs of a prefix: `opt/<role>/<version>-<digest>/`, immutable and read-only once published.

An install is built at its final path (a conda prefix cannot be moved) and counts as published only when
`receipt.json` exists in it, which is written last, by rename. `manifest.json` beside it records every path:

    {"<relative path>": [type, mode, size, mtime_ns, sha256 or link target]}   type: "file" | "link" | "dir"

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from typing import Any

RECEIPT = "receipt.json"
MANIFEST = "manifest.json"
MARKER = ".stack.json"
SCHEMA = 1
CLOSURE = ("packages", "inputs")  # of a conda channel with specs: all that conda installs for them, and its files

Manifest = dict[str, list[Any]]


class StackError(Exception):
    """A failure with its cause and remedy in one sentence or two, for the person at the terminal."""


def canonical(data: object) -> bytes:
    """JSON bytes that are the same for equal data on every machine."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(data: object) -> str:
    """First 12 hex digits of the sha256 over `data`: the identity of an install or a generation."""
    return hashlib.sha256(canonical(data)).hexdigest()[:12]


def sha256_of(path: str, kind: str = "sha256") -> str:
    """Hex sha256 of a file's bytes, or another sum of hashlib."""
    sums = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            sums.update(chunk)
    return sums.hexdigest()


def unpinned(data: Any) -> list[str]:
    """A sentence for all in a lock (or a part of one) that does not pin its bytes, or lacks what every file needs."""
    unknown, wrong = [], []
    for where, entry in objects(data, ""):
        name = entry.get("filename", where)
        if entry.get("sha256", "") is None:
            unknown.append(str(name))
        elif not re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256", "0" * 64))):
            wrong.append(f"The sha256 of {name} in the lock is not 64 hex digits: {entry['sha256']!r}.")
        elif "source" in entry and any(entry.get(key) is None for key in ("filename", "sha256", "size", "licence")):
            wrong.append(
                f"{name} in the lock needs all of filename, sha256, size (bytes) and licence; "
                "playbooks/lock.yml finds all but the licence."
            )
        if "specs" in entry and any(entry.get(key) is None for key in CLOSURE):
            unknown.append(f"{' and '.join(entry['specs'])}, and of all that conda installs with it,")
        if not re.fullmatch("[0-9a-f]{40}", str(entry.get("commit", "0" * 40))):
            wrong.append(
                f"The commit of {where.partition('.')[0]} is {entry['commit']!r}: give a full commit id of 40 hex "
                "digits. Branches and tags move; `git rev-parse NAME` tells the id."
            )
    if unknown:
        wrong.append(
            f"The sha256 of {', '.join(unknown)} is not known (null in the lock), so it is not fetched. "
            "Compute it: `ansible-playbook playbooks/lock.yml -e lock_file=PATH/group_vars/stack_NAME/lock.yml` (for a "
            "lock of this repository `-e lock_stack=NAME`), and review what it writes."
        )
    return wrong


def built_key(recipe: dict[str, Any]) -> str:
    """Identity of a built artifact: digest over its recipe's name and version and the sums of its inputs.

    `recipe`: {"name": str, "version": int, "inputs": [{"filename": str, "sha256": str}, ...]}.
    """
    sums = sorted((item["filename"], item["sha256"]) for item in recipe["inputs"])
    return digest({"name": recipe["name"], "version": recipe["version"], "inputs": sums})


def objects(data: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in `data`, with the path to it."""
    if isinstance(data, dict):
        yield where, data
        for key, value in data.items():
            yield from objects(value, f"{where}.{key}".lstrip("."))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from objects(item, f"{where}[{index}]")


def write_json(path: str, data: object) -> None:
    """Write `data` to `path` by rename: readers see the old content or the new one, never a half."""
    temporary = f"{path}.{os.urandom(6).hex()}.new"
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(data, stream, indent=1, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file; {} where there is no file, or something else in it."""
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _entries(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and lstat of everything below `root`, the receipt and the manifest left out."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as found:
            for entry in found:
                path = folder + entry.name
                if path in (RECEIPT, MANIFEST):
                    continue
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path + "/")


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
    """What of `root` is not as its manifest says: by stat alone, or (`deep`) by content as well.

    Folders are listed rather than each path asked for: over NFS that is a fraction of the calls. What was added is no
    difference: a login that is root leaves bytecode in read-only folders.
    """
    try:
        actual = dict(_entries(root))
    except PermissionError as error:
        return [f"{os.path.relpath(error.filename, root)} cannot be listed"]
    return [
        f"{path} {what}"
        for path, expected in manifest.items()
        if (what := _difference(root, path, actual.get(path), expected, deep))
    ]


def _difference(root: str, path: str, info: os.stat_result | None, expected: list[Any], deep: bool) -> str:
    """How one path differs from its entry in the manifest; "" when it does not."""
    if info is None:
        return "is missing"
    actual = _describe(info)
    if actual != expected[:4]:
        names = ("type", "mode", "size", "time")
        return f"has another {next(name for name, a, b in zip(names, actual, expected) if a != b)}"
    if expected[0] == "dir" or (expected[0] == "file" and not deep):
        return ""
    full = os.path.join(root, path)
    if expected[0] == "link":
        return "" if os.readlink(full) == expected[4] else "points elsewhere"
    try:
        return "" if sha256_of(full) == expected[4] else "has other content"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def install_state(root: str, deep: bool = False) -> dict[str, str]:
    """State of one install: {"state": "present" | "absent" | "damaged", "why": str}.

    Raises OSError when the filesystem does not answer, which says nothing about the install.
    """
    path = os.path.join(root, MANIFEST)
    try:
        receipt = read_json(os.path.join(root, RECEIPT))
        if not receipt:
            why = "started but never finished" if os.path.lexists(root) else "not installed"
            return {"state": "absent", "why": why}
        manifest = read_json(path)
        if not manifest or sha256_of(path) != receipt.get("manifest_sha256"):
            return {"state": "damaged", "why": f"{MANIFEST} is missing or altered"}
    except PermissionError as error:
        return {"state": "damaged", "why": f"{os.path.basename(error.filename)} cannot be read"}
    if not all(isinstance(entry, list) and len(entry) == 5 for entry in manifest.values()):
        return {"state": "damaged", "why": f"{MANIFEST} is not one of this project"}
    wrong = differences(root, manifest, deep)
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return {"state": "damaged", "why": "; ".join(wrong[:3]) + rest}
    return {"state": "present", "why": f"{len(manifest)} paths as recorded"}


def settled_state(root: str, deep: bool, pause: float = 0.5) -> dict[str, str]:
    """State of an install that another server may be replacing right now: as `install_state` finds it in a folder that
    is the same one before and after. Raises OSError when that never comes to rest."""
    for _attempt in range(20):
        before = _identity(root)
        with contextlib.suppress(FileNotFoundError):  # renamed while it was listed
            state = install_state(root, deep)
            if _identity(root) == before:
                return state
        time.sleep(pause)
    raise OSError(f"{root} is replaced again and again")


def _identity(path: str) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        info = os.lstat(path)
        return info.st_dev, info.st_ino
    return None


def make_read_only(root: str) -> None:
    """Make everything below and including `root` readable and not writable; setuid, setgid and sticky bits go."""
    for path, info in _entries(root):
        if not stat.S_ISLNK(info.st_mode):
            least = 0o500 if stat.S_ISDIR(info.st_mode) else 0o400
            os.chmod(os.path.join(root, path), info.st_mode & 0o555 | least)
    os.chmod(root, 0o555)


def remove_tree(path: str) -> None:
    """Remove a file or a folder, read-only ones too. Nothing there, or another server removing it as well, is fine."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
            return
        os.chmod(path, 0o700)
        for name in os.listdir(path):
            remove_tree(os.path.join(path, name))
        os.rmdir(path)


def publish(root: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Make the finished folder `root` an install: read-only, manifest, receipt last. Returns the receipt."""
    make_read_only(root)
    manifest = scan(root)
    if not manifest:
        raise StackError(f"{root} is empty: nothing was built in it.")
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


# Why a prefix is refused; also for those who look at it without modules.


def no_full_path(prefix: str) -> StackError:
    return StackError(f"stack_prefix is {prefix!r}: give a full path, one that begins with / or ~.")


def not_a_folder(prefix: str) -> StackError:
    return StackError(f"{prefix} is not a folder. Set stack_prefix to a folder of its own.")


def not_ours(prefix: str) -> StackError:
    return StackError(
        f"{prefix} is not empty and was not made by this project (it has no {MARKER}). "
        "Set stack_prefix to a folder that is new, empty, or this stack's own."
    )


def of_another(prefix: str, owner: str, stack: str) -> StackError:
    return StackError(
        f"{prefix} belongs to stack {owner}, not {stack}. One prefix holds one stack: "
        "leave stack_prefix at its default, which ends in the stack's name, or name another folder."
    )


def owner_of(prefix: str) -> str | None:
    """Name of the stack that owns `prefix`; None where the prefix is absent or empty.

    Raises StackError for a folder that holds anything else: nothing of somebody else's is ever touched.
    """
    if not os.path.lexists(prefix):
        return None
    if not os.path.isdir(prefix):
        raise not_a_folder(prefix)
    marker = read_json(os.path.join(prefix, MARKER))
    if "stack" in marker:
        return str(marker["stack"])
    if not _is_untouched(prefix):
        raise not_ours(prefix)
    return None


def _is_untouched(prefix: str) -> bool:
    """Whether `prefix` holds nothing but what precedes the marker: its draft (of a run that was killed), and the
    var/tmp that Ansible makes by itself where it cannot pipeline."""
    names = [name for name in os.listdir(prefix) if not name.startswith(MARKER)]
    return not names or (names == ["var"] and os.listdir(os.path.join(prefix, "var")) == ["tmp"])


def check_owner(prefix: str, stack: str) -> None:
    """Raise StackError unless `prefix` is free or already belongs to `stack`."""
    owner = owner_of(prefix)
    if owner not in (None, stack):
        raise of_another(prefix, str(owner), stack)


def restrict_umask() -> None:
    """Let nobody but the login and its group write in what this process makes, whatever the login's umask."""
    os.umask(os.umask(0o077) | 0o002)


def missing_folders(path: str) -> list[str]:
    """`path` and its parents as far as they do not exist, innermost first."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def temporary_folder(prefix: str) -> str:
    """Where this server's processes have their temporary files; servers of a shared home have one each."""
    return os.path.join(prefix, "var", "tmp", socket.gethostname())


def marker_of(stack: str, made: list[str]) -> dict[str, Any]:
    """What the marker of a prefix says; `made`: folders that were not there before."""
    return {"stack": stack, "schema": SCHEMA, "made": made}


def claim(prefix: str, stack: str) -> None:
    """Make `prefix` this stack's own: its folders and its marker. Raises StackError as check_owner does."""
    check_owner(prefix, stack)
    made = missing_folders(prefix)  # for the day on which the stack is removed
    os.makedirs(prefix, exist_ok=True)
    marker = os.path.join(prefix, MARKER)
    known = marker_of(stack, made)
    if not made:
        # Another server of a shared home may have made the folders just now: its marker, which says so, is to stay.
        draft = f"{marker}.{os.urandom(6).hex()}"
        write_json(draft, known)
        with contextlib.suppress(FileExistsError):
            os.link(draft, marker)
        os.unlink(draft)
    if made or not read_json(marker):
        write_json(marker, known)
    for folder in ("opt", "generations", "checks", "var/cache", "var/log", "var/lease", "var/home"):
        os.makedirs(os.path.join(prefix, folder), exist_ok=True)
    os.makedirs(temporary_folder(prefix), exist_ok=True)
