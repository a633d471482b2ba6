"""What a prefix holds for a short time, and what killed runs leave of it.

Each server of a shared home has its own folder, `var/tmp/<server>/`: there go the temporary files of all processes that
a run starts on it, Ansible's unpacked modules among them, and what is made there and renamed. So whoever finds nobody
of its own server at work there knows that all in it is garbage.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import time
from collections.abc import Iterator

from ansible.module_utils.stack_installs import RECEIPT, remove_tree, temporary_folder
from ansible.module_utils.stack_lookup import own_processes, processes_at

OLD = 24 * 3600.0  # seconds: no build takes as long
DRAFT = 60.0  # seconds: a lease is written and linked at once


def new_temporary(prefix: str, purpose: str) -> str:
    """A new name for what is made and renamed, or renamed aside and removed. Its folder is there."""
    folder = temporary_folder(prefix)
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"{purpose}-{os.urandom(6).hex()}")


def _age(path: str) -> float:
    """Seconds since a path was modified; 0 when it has gone meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - os.lstat(path).st_mtime
    return 0.0


def _below(folder: str) -> list[str]:
    """Paths in a folder; none where there is no such folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return []


def _is_spent(prefix: str, lease: str) -> bool:
    """Whether a lease's install was published after its last heartbeat: its holder was killed before giving it back.

    (One that is taken to rebuild a damaged install is younger than the receipt.)
    """
    if not lease.endswith(".json"):
        return _age(lease) > DRAFT
    role, _, digest = os.path.basename(lease)[: -len(".json")].rpartition("-")
    receipts = glob.glob(os.path.join(glob.escape(prefix), "opt", role, f"*-{digest}", RECEIPT))
    with contextlib.suppress(FileNotFoundError):
        return any(os.stat(receipt).st_mtime_ns >= os.stat(lease).st_mtime_ns for receipt in receipts)
    return False


def leftovers(prefix: str) -> Iterator[str]:
    """What killed runs left: all of this server's temporary files when nobody works with them, else installs renamed
    aside and what is old; and leases of installs that are there."""
    own = temporary_folder(prefix)
    # Not the folder in which Ansible has unpacked this very module.
    entries = [path for path in _below(own) if not any(place.startswith(path + os.sep) for place in sys.path)]
    idle = bool(entries) and not set(processes_at(own)) - own_processes()
    for folder in _below(os.path.join(prefix, "var", "tmp")):
        for path in entries if folder == own else [folder, *_below(folder)]:
            if (idle and folder == own) or os.path.basename(path).startswith("garbage-") or _age(path) > OLD:
                yield path
    yield from (lease for lease in _below(os.path.join(prefix, "var", "lease")) if _is_spent(prefix, lease))


def sweep(prefix: str) -> None:
    """Remove what killed runs left."""
    for path in list(leftovers(prefix)):
        # Files that a program still has open cannot all be removed over NFS (.nfs…): the next run tries again.
        with contextlib.suppress(OSError):
            remove_tree(path)
