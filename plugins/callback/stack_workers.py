"""Ends Ansible's workers with the run that they work for."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: stack_workers
type: aggregate
short_description: Workers end with their run
description:
  - A worker is in a session of its own. When ansible-playbook is killed, or the terminal is closed, it would go on with
    its task, loop item after loop item, piece after piece of a push, while the next run already builds in its place.
  - Asks the kernel (Linux) to end each worker with its parent.
"""

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """Have this process killed when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


class CallbackModule(CallbackBase):
    """Does its work by being loaded: before the first worker is forked."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "stack_workers"

    def __init__(self) -> None:
        super().__init__()
        if sys.platform == "linux":
            os.register_at_fork(after_in_child=end_with_parent)
