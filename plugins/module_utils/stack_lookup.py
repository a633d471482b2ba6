"""What a server tells of itself and of its prefix. Runs on servers: Python >= 3.9, standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.stack_installs import RECEIPT, install_state, read_json

HEART = "stack-heart"  # its name in a list of processes; the kernel keeps 15 characters


def current_state(prefix: str, deep: bool = False) -> dict[str, str]:
    """State of the generation that `<prefix>/current` points to, as `install_state` tells it, with its "path"."""
    path = os.path.realpath(os.path.join(prefix, "current"))
    return {**install_state(path, deep), "path": path}


def current_generation(prefix: str, deep: bool = False) -> dict[str, Any]:
    """The receipt of the generation that `<prefix>/current` points to, with its "path"; {} unless it is whole."""
    found = current_state(prefix, deep)
    if found["state"] != "present":
        return {}
    return {**read_json(os.path.join(found["path"], RECEIPT)), "path": found["path"]}


def driver_line() -> str:
    """First line of the loaded NVIDIA driver's version file; "" without a driver."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def seen_at(folder: str) -> Iterator[None]:
    """Have processes_at find this process at `folder`, in which it writes by full paths."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(opened)


def mentions(process: str) -> Iterator[str]:
    """What a process says of the files that it uses: arguments, environment, program, folder, what it has open and
    what it has mapped. Of another login's processes that is little or nothing."""
    folder = f"/proc/{process}"
    for name in ("cmdline", "environ", "maps"):
        with contextlib.suppress(OSError), open(f"{folder}/{name}", "rb") as stream:
            yield os.fsdecode(stream.read())
    links = ["exe", "cwd"]
    with contextlib.suppress(OSError):
        links += [f"fd/{name}" for name in os.listdir(f"{folder}/fd")]
    for link in links:
        with contextlib.suppress(OSError):
            yield os.readlink(f"{folder}/{link}")


def own_processes() -> set[int]:
    """This process and those that it was started by, up to the first."""
    found, process = set(), os.getpid()
    while process:
        found.add(process)
        try:
            with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stream:
                process = int(stream.read().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def is_heart(process: str) -> bool:
    """Whether a process is the heart of a lease (stack_lease), which was started by a build and uses nothing of it."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as stream:
        return stream.read().strip() == HEART
    return False


def processes_at(path: str) -> list[int]:
    """Processes of this server that have to do with `path` or what is below it."""
    found = [process for process in filter(str.isdigit, os.listdir("/proc")) if int(process) != os.getpid()]
    found = [process for process in found if any(path in text for text in mentions(process))]
    return [int(process) for process in found if not is_heart(process)]
