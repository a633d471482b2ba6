"""A package's files before they are packed: writing them safely and with one fixed time."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import RecipeError
from .inputs import Member, read_deb

# The day of the document that the project starts from. One time for every file makes the output reproducible, and
# keeps byte code valid: CPython 2.7 compares the source's time with the one recorded in the .pyc.
SOURCE_TIME = 1527552000  # 2018-05-29 00:00:00 UTC

# conda replaces this text by the prefix when it links a package (its own default placeholder).
PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"


def write_member(root: Path, name: str, member: Member) -> Path:
    """Write one archive member to ``root/name``; a name that would leave ``root`` is refused."""
    target = root / name
    if not target.resolve().is_relative_to(root.resolve()):
        raise RecipeError(f"{name} would be written outside the package: the input is damaged.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.link_target is not None:
        target.symlink_to(member.link_target)
        return target
    target.write_bytes(member.data)
    target.chmod(0o755 if member.executable else 0o644)
    return target


def write_text(root: Path, name: str, text: str, *, executable: bool = False) -> Path:
    """Write a generated text file."""
    return write_member(root, name, Member(name, text.encode("utf-8"), executable))


def files_of(root: Path) -> list[str]:
    """Relative names of all files and symbolic links below ``root``, sorted."""
    names = []
    for folder, subfolders, files in os.walk(root):
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        names += [os.path.relpath(os.path.join(folder, name), root) for name in files + links]
    return sorted(names)


def set_times(root: Path) -> None:
    """Give every file below ``root`` the one fixed time."""
    for name in files_of(root):
        os.utime(root / name, (SOURCE_TIME, SOURCE_TIME), follow_symlinks=False)


def add_licences(root: Path, debs: list[Path]) -> None:
    """Copy each Debian package's copyright file: what is passed on keeps its terms with it."""
    for deb in debs:
        for member in read_deb(deb):
            parts = member.name.split("/")
            if parts[:3] == ["usr", "share", "doc"] and parts[4:] == ["copyright"] and member.link_target is None:
                write_member(root, f"share/doc/{parts[3]}/copyright", member)
