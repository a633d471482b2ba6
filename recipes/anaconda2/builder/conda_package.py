"""Write conda packages whose bytes depend on their content alone."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .tree import PLACEHOLDER, SOURCE_TIME, files_of


@dataclass(frozen=True)
class Package:
    """What conda needs to know of a package; ``build`` shows in ``conda list`` and tells where it came from."""

    name: str
    version: str
    build: str
    depends: list[str] = field(default_factory=list)
    summary: str = ""

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}-{self.build}.tar.bz2"


def tar_member(name: str, size: int = 0, *, executable: bool = False) -> tarfile.TarInfo:
    """A member without owner and with the one fixed time, so that equal content makes equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if executable else 0o644
    info.mtime = SOURCE_TIME
    return info


def describe_file(root: Path, name: str) -> dict[str, Any]:
    """One entry of ``info/paths.json`` (version 1): kind, size, sum, and the placeholder if the text holds it."""
    path = root / name
    if path.is_symlink():
        return {"_path": name, "path_type": "softlink", "sha256": hashlib.sha256().hexdigest(), "size_in_bytes": 0}
    data = path.read_bytes()
    entry: dict[str, Any] = {
        "_path": name,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if PLACEHOLDER.encode() in data and b"\0" not in data:
        if name.endswith(".py"):
            # conda would write the module anew, and the byte code beside it would be stale.
            raise RecipeError(f"{name} holds the prefix placeholder: only scripts and settings may.")
        entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return entry


def write_package(package: Package, root: Path, folder: Path, level: int = 6) -> Path:
    """Pack the files below ``root`` as a conda package into ``folder`` and return its path.

    conda 4.3 insists on the suffix ``.tar.bz2`` but looks at the content: it is gzip (of compression ``level``), since
    bare servers have no bzip2, and gzip unpacks several times faster.
    """
    names = files_of(root)
    index = {
        "arch": "x86_64",
        "build": package.build,
        "build_number": 0,
        "depends": package.depends,
        "name": package.name,
        "platform": "linux",
        "subdir": "linux-64",
        "version": package.version,
    }
    info = {
        "info/about.json": json.dumps({"summary": package.summary}),
        "info/files": "".join(f"{name}\n" for name in names),
        "info/index.json": json.dumps(index, indent=2, sort_keys=True),
        "info/paths.json": json.dumps({"paths": [describe_file(root, name) for name in names], "paths_version": 1}),
    }
    target = folder / package.filename
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(target.open("wb"))
        stream = stack.enter_context(gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=raw, mtime=0))
        archive = stack.enter_context(tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT))
        for name, text in sorted(info.items()):
            data = text.encode("utf-8")
            archive.addfile(tar_member(name, len(data)), io.BytesIO(data))
        for name in names:
            add_file(archive, root / name, name)
    return target


def add_file(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add one file or symbolic link under ``name``."""
    if path.is_symlink():
        member = tar_member(name)
        member.type = tarfile.SYMTYPE
        member.linkname = str(path.readlink())
        archive.addfile(member)
        return
    stat = path.stat()
    with path.open("rb") as handle:
        archive.addfile(tar_member(name, stat.st_size, executable=bool(stat.st_mode & 0o100)), handle)
