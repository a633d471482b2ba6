"""A limit on how many pushes leave this controller at once, over all servers and all runs of a person.

Each holds a lock on a file of this machine, which the kernel gives back when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator

from ansible.module_utils.stack_installs import StackError

POLL = 0.5  # seconds


def lock_folder() -> str:
    """The folder of the locks: this login's own. Raises StackError where somebody else has made it."""
    folder = os.path.join(tempfile.gettempdir(), f"stack-transfers-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.lstat(folder).st_uid != os.getuid() or os.path.islink(folder):
        raise StackError(f"{folder} on the controller belongs to somebody else. Remove it, or set TMPDIR.")
    return folder


def try_lock(path: str) -> int:
    """A descriptor that holds the lock on `path`, or -1 when somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    return descriptor


@contextlib.contextmanager
def transfer(
    limit: int, waits: Callable[[float], object], folder: str = "", sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Be one of at most `limit` transfers (0: of any number). `waits` is told again and again for how many seconds this
    one has waited for its turn."""
    if limit < 1:
        yield
        return
    paths = [os.path.join(folder or lock_folder(), f"{number}.lock") for number in range(limit)]
    waited = 0.0
    while (descriptor := next((found for found in map(try_lock, paths) if found >= 0), -1)) < 0:
        waits(waited)
        sleep(POLL)
        waited += POLL
    try:
        yield
    finally:
        os.close(descriptor)
