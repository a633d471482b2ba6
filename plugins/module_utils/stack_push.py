"""Pushing a file to a server over the connection that Ansible has, without a Python there. Runs on the controller."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.stack_installs import StackError

BLOCK = 1 << 20  # bytes
PIECE = 16 * BLOCK  # pushed by one remote call


def push(
    execute: Callable[[str, bytes], Mapping[str, Any]],
    path: Path,
    part: str,
    have: int = 0,
    piece: int = PIECE,
    again: str = "run the same command again",
) -> Iterator[int]:
    """Write `path` to the file `part` of a server, from its byte `have` on, a piece per remote call.

    Yields the bytes that are there after each. `execute` runs a command with bytes on its stdin. Raises StackError;
    `again`: what to do then.
    """
    size, done = path.stat().st_size, have // BLOCK
    with path.open("rb") as stream:
        stream.seek(done * BLOCK)
        while data := stream.read(piece):
            # Not `cat >>`: ssh repeats a command whose connection broke, and the piece would be there twice.
            # dd cuts the file where it begins to write.
            said = execute(f"dd of={shlex.quote(part)} bs={BLOCK} seek={done} status=none", data)
            if said["rc"]:
                raise StackError(
                    f"{path.name} could not be pushed: {(said['stderr'] or 'the connection broke').strip()}. "
                    f"{os.path.dirname(part)} has {done * BLOCK / 1e6:.0f} of {size / 1e6:.0f} MB; {again}."
                )
            done += len(data) // BLOCK
            yield stream.tell()
