#!/usr/bin/python
"""Remove what no generation that is kept and no running process uses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_prune
short_description: Remove what no kept generation and no running process uses
description:
  - Keeps the current generation, the newest O(keep) others that are whole, those that a process uses or a workspace was
    built with, and the installs of all of these; removes other generations, other installs, downloads, and what killed
    runs left.
  - What a run that is under way may have made a moment ago is kept, too.
  - Where servers share the prefix, the first of O(usages) does it, and all that ever used it must have been asked.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  keep: {description: Number of generations to keep beside the current one., type: int, default: 1}
  downloads: {description: Remove downloads from the cache., type: bool, default: true}
  usages:
    description: What C(generation_info) said on each server of the run.
    type: list
    elements: dict
    required: true
"""

RETURN = r"""
removed: {description: 'What was removed, with C(path), C(why) and C(bytes).', type: list, returned: success}
bytes: {description: Bytes that this frees., type: int, returned: success}
lines: {description: The same for people; also what was kept and why., type: list, returned: success}
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ansible.module_utils import stack_lease
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_generations import (
    builders,
    current_number,
    generations,
    sharing,
    unasked,
    users,
    workspaces,
)
from ansible.module_utils.stack_installs import RECEIPT, StackError, remove_tree
from ansible.module_utils.stack_temporary import leftovers, new_temporary

RECENT = 3600.0  # seconds: a run that is under way makes a generation of its installs within that time

Reasons = dict[str, str]  # by path relative to the prefix


def age(path: str) -> float:
    """Seconds since a path was modified; 0 when it has gone meanwhile."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def below(prefix: str, *folders: str) -> Iterator[str]:
    """Names in some folders, as paths relative to the prefix."""
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in sorted(os.listdir(os.path.join(prefix, folder))):
                yield f"{folder}/{name}"


def kept_generations(found: list[dict[str, Any]], used: Reasons, keep: int) -> Reasons:
    """Generations to keep, and why. `found`: newest first."""
    others = [generation["number"] for generation in found if not (generation["current"] or generation["problem"])]
    why: Reasons = {}
    for generation in found:
        path = f"generations/{generation['number']}"
        if generation["current"]:
            why[path] = "current"
        elif path in used:
            why[path] = used[path]
        elif generation["number"] in others[:keep]:
            why[path] = "to go back to"
    return why


def kept_installs(prefix: str, installs: Iterable[str], linked: set[str], used: Reasons) -> Reasons:
    """Installs that belong to no kept generation and are kept all the same, and why.

    `linked`: the installs of all generations, kept or not.
    """
    why, building = {}, builders(prefix)
    for path in installs:
        _opt, role, name = path.split("/")
        lease = stack_lease.lease_path(prefix, role, name.rpartition("-")[2])
        receipt = os.path.join(prefix, path, RECEIPT)
        if path in used:
            why[path] = used[path]
        elif lease in building:
            why[path] = f"being built by {building[lease].get('server', 'a server')}"
        elif path not in linked and os.path.exists(receipt) and age(receipt) <= RECENT:
            why[path] = "just installed: a run may be about to use it"
    return why


def plan(prefix: str, keep: int, used: Reasons, downloads: bool, pythons: set[str]) -> tuple[Reasons, Reasons]:
    """(what to remove, what is kept), each with why, in the order in which to remove it.

    `pythons`: those that role bootstrap put there and that servers of the run run on.
    """
    found = generations(prefix)
    kept = kept_generations(found, used, keep)
    remove = {
        f"generations/{generation['number']}": f"NOT WHOLE: {generation['problem']}"
        if generation["problem"]
        else "an old generation"
        for generation in found
        if f"generations/{generation['number']}" not in kept
    }
    linked = {path for generation in found for path in generation["installs"].values()}
    needed = {
        path
        for generation in found
        if f"generations/{generation['number']}" in kept
        for path in generation["installs"].values()
    }
    roles = below(prefix, "opt")
    unneeded = [path for path in below(prefix, *roles) if path not in needed]
    kept |= kept_installs(prefix, unneeded, linked, used)
    for path in unneeded:
        published = os.path.exists(os.path.join(prefix, path, RECEIPT))
        remove[path] = "in no generation that is kept" if published else "started but never finished"
    for path in below(prefix, "var/python3"):
        remove[path] = "a Python that no server of this run uses"
        if path in pythons:
            kept[path] = "the modules of this run run on it"
        elif age(os.path.join(prefix, path, RECEIPT)) <= RECENT:
            kept[path] = "just installed: a run may be about to use it"
    if downloads:
        cached = list(below(prefix, "var/cache/sha256", "var/cache/md5"))
        recent = [path for path in cached if age(os.path.join(prefix, path)) <= RECENT]
        kept |= dict.fromkeys(recent, "just downloaded: a run may be about to use it")
        remove |= dict.fromkeys(cached, "a download")
    for path in below(prefix, "var/lease"):
        if age(os.path.join(prefix, path)) > stack_lease.FORGOTTEN:
            remove[path] = "the lease of a run that has died"
    remove |= {os.path.relpath(path, prefix): "left by a run that was killed" for path in leftovers(prefix)}
    return {path: why for path, why in remove.items() if path not in kept}, kept


def disk_bytes(prefix: str, paths: Iterable[str]) -> dict[str, int]:
    """Bytes on disk that removing all `paths` frees, told under each. A file with several names (conda makes such)
    counts when its last one goes."""
    names: dict[tuple[int, int], int] = {}
    freed = {}
    for path in paths:
        freed[path] = 0
        pending = [os.path.join(prefix, path)]
        while pending:
            current = pending.pop()
            with contextlib.suppress(FileNotFoundError, PermissionError):
                info = os.lstat(current)
                key = (info.st_dev, info.st_ino)
                names[key] = names.get(key, 0) + 1
                if os.path.isdir(current) and not os.path.islink(current):
                    pending += [os.path.join(current, name) for name in os.listdir(current)]
                elif names[key] == info.st_nlink:
                    freed[path] += 512 * info.st_blocks
    return freed


def remove(prefix: str, path: str) -> None:
    """Remove a path: by rename first, so that nobody meets half of an install."""
    full = os.path.join(prefix, path)
    if path == f"generations/{current_number(prefix)}":
        return  # made current a moment ago
    aside = full
    if path.startswith(("opt/", "generations/", "var/python3/")):
        aside = new_temporary(prefix, "garbage")
        with contextlib.suppress(FileNotFoundError):
            os.chmod(full, 0o755)  # a folder must be writable to be renamed
            os.rename(full, aside)
    # Files that a program still has open cannot all be removed over NFS (.nfs…): the next run tries again.
    with contextlib.suppress(OSError):
        remove_tree(aside)


def megabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "keep": {"type": "int", "default": 1},
            "downloads": {"type": "bool", "default": True},
            "usages": {"type": "list", "elements": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix = given["prefix"]
    if given["keep"] < 0:
        module.fail_json(msg=f"prune_keep is {given['keep']}: give the number of generations to keep, 0 or more.")
    usages = sharing(prefix, given["usages"])
    first = usages[0]["server"] if usages else socket.gethostname()
    if first != socket.gethostname():
        lines = [f"{first} shares this prefix and does it."]
        module.exit_json(changed=False, removed=[], bytes=0, lines=lines)
    try:
        missing = unasked(prefix, usages)
        if missing:
            raise StackError(
                f"{', '.join(missing)} has used {prefix} too, and what runs there could not be asked, so nothing was "
                "removed. Prune all servers that share it in one run, without --limit. Where one is gone for good, "
                f"remove its folder in {prefix}/checks."
            )
        unneeded, kept = plan(
            prefix,
            given["keep"],
            {**workspaces(prefix), **users(usages)},
            given["downloads"],
            {usage["python"] for usage in usages},
        )
        sizes = disk_bytes(prefix, unneeded)
        for path in unneeded if not module.check_mode else []:
            remove(prefix, path)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{prefix} could not be pruned: {error}. What is in use is untouched; run it again.")
    total = sum(sizes.values())
    verb, done = ("would free", "would remove") if module.check_mode else ("freed", "removed")
    lines = [f"kept {path}: {why}" for path, why in kept.items()]
    lines += [f"{done} {path} ({megabytes(sizes[path])}): {why}" for path, why in unneeded.items()]
    lines += [f"{verb} {megabytes(total)}" if unneeded else "nothing to remove"]
    removed = [{"path": path, "why": why, "bytes": sizes[path]} for path, why in unneeded.items()]
    module.exit_json(changed=bool(unneeded), removed=removed, bytes=total, lines=lines)


if __name__ == "__main__":
    main()
