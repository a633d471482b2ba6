"""What a task that failed says to people. Runs on the controller."""

from __future__ import annotations

import re
from typing import Any


def cause(result: dict[str, Any]) -> str:
    """Why a task failed: its message, for a loop that of the first item that failed, for a command what it said.

    Of a message of several lines those that are not indented: the others explain them, and stand above.
    """
    failed = next((item for item in result.get("results", []) if item.get("failed")), result)
    message = str(failed.get("msg", "no message")).strip().splitlines()
    lines = [line for line in message if line and not line[0].isspace()]
    said = str(failed.get("stderr") or failed.get("stdout") or "").strip().splitlines()[-5:]
    return " ".join(" ".join([*lines, *said]).split())


def no_commands(host: str, why: str) -> str:
    """What to say of a server that can be logged in to and runs no command."""
    return (
        f"{host} can be logged in to, and did not answer a command ({why.strip()}). A start-up file of the login shell "
        "(.bashrc, .cshrc, .zshenv) replaces it by another shell with exec, or waits for something. Let it do so only "
        "where a person types, in .bashrc as: case $- in *i*) exec zsh ;; esac"
    )


def unreachable(message: str) -> str:
    """Why a server could not be reached, in ssh's own words where it is ssh that failed."""
    said = [line.strip() for line in re.split(r"(?:via|over) ssh: *", message, maxsplit=1)[-1].splitlines()]
    said = [line for line in said if line and not line.startswith("Warning: Permanently added")]
    return " ".join(said[-3:]) or "the connection broke, and ssh does not say why: did the server go down?"
