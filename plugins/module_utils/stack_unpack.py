"""Unpacking of archives that may be hostile. Runs on servers: Python >= 3.9 (older than tarfile's filters)."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Callable, Iterator, Optional

from ansible.module_utils.stack_installs import StackError

AR_MAGIC = b"!<arch>\n"


@dataclass(frozen=True)
class Member:
    """One entry of an archive. `link` is a symbolic link's target; `open` yields a file's bytes."""

    name: str
    kind: str  # "file" | "dir" | "link"
    mode: int
    size: int = 0
    link: str = ""
    open: Optional[Callable[[], Optional[IO[bytes]]]] = None


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for info in archive:
        if info.isdir():
            yield Member(info.name, "dir", info.mode)
        elif info.issym():
            yield Member(info.name, "link", 0, link=info.linkname)
        elif info.isfile() or info.islnk():
            # A hard link is unpacked as a copy of the file that it names in the archive.
            yield Member(info.name, "file", info.mode, info.size, open=lambda info=info: archive.extractfile(info))
        else:
            raise StackError(f"{archive.name} holds {info.name}, which is a device or a pipe: refused.")


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if info.is_dir():
            yield Member(info.filename, "dir", 0o755)
        elif stat.S_ISLNK(mode):
            yield Member(info.filename, "link", 0, link=archive.read(info).decode())
        elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise StackError(f"{archive.filename} holds {info.filename}, which is not a file, folder or link: refused.")
        else:
            yield Member(
                info.filename, "file", mode or 0o644, info.file_size, open=lambda info=info: archive.open(info)
            )


def safe_name(name: str, archive: str) -> str:
    """`name` normalised; "" for the archive's own root. Raises StackError when it leads out of the folder."""
    clean = posixpath.normpath(name)
    if name.startswith("/") or "\\" in name or clean == ".." or clean.startswith("../") or "\0" in name:
        raise StackError(f"{archive} holds a member named {name!r}, which leads outside its folder: refused.")
    return "" if clean == "." else clean


def plan(members: list[Member], archive: str, patterns: list[str], flatten: bool) -> dict[str, Member]:
    """{path below the destination: member}, checked as a whole before anything is written. Raises StackError."""
    chosen: dict[str, Member] = {}
    for member in members:
        name = safe_name(member.name, archive)
        if not name or (patterns and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)):
            continue
        if flatten:
            if member.kind == "dir":
                continue
            name = posixpath.basename(name)
        if member.kind == "link":
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.link))
            if member.link.startswith("/") or target == ".." or target.startswith("../"):
                raise StackError(f"{archive} holds a link {name} to {member.link}, outside its folder: refused.")
        chosen[name] = member
    for name in chosen:
        above = posixpath.dirname(name)
        while above:
            if above in chosen and chosen[above].kind != "dir":
                raise StackError(f"{archive} holds {name} below {above}, which is no folder: refused.")
            above = posixpath.dirname(above)
    for pattern in patterns:
        if not any(fnmatch.fnmatch(safe_name(member.name, archive), pattern) for member in members):
            raise StackError(f"{archive} holds nothing named {pattern}. Is it the right archive?")
    return chosen


def _write(member: Member, path: str) -> None:
    """Write one member. Files lose setuid, setgid and write permission for others; folders are always enterable."""
    if member.kind == "dir":
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if member.kind == "link":
        os.symlink(member.link, path)
        return
    source = member.open() if member.open else None
    if source is None:
        raise StackError(f"{member.name} links to something that is not in its archive: refused.")
    with source, open(path, "xb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
    os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)


def _deb_data(stream: IO[bytes], name: str) -> IO[bytes]:
    """The data.tar of a Debian package: an `ar` archive of members with 60-byte headers (deb(5))."""
    stream.seek(len(AR_MAGIC))
    while header := stream.read(60):
        member, size = header[:16].decode().rstrip(" /"), int(header[48:58])
        if member.startswith("data.tar"):
            return io.BytesIO(stream.read(size))
        stream.seek(size + size % 2, os.SEEK_CUR)
    raise StackError(f"{name} is a Debian package without data in it.")


@contextlib.contextmanager
def _open(src: str) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """The archive, whatever its kind. Raises StackError for none, OSError for a file that cannot be read."""
    with open(src, "rb") as stream:
        if stream.read(len(AR_MAGIC)) == AR_MAGIC:
            with tarfile.open(src, fileobj=_deb_data(stream, src)) as archive:
                yield archive
            return
    with zipfile.ZipFile(src) if zipfile.is_zipfile(src) else tarfile.open(src) as archive:
        yield archive


def unpack(src: str, dest: str, patterns: list[str], flatten: bool) -> tuple[int, int]:
    """Unpack `src` (tar in any compression, zip, wheel or Debian package) below `dest`. Returns (files, bytes).

    Raises StackError for an archive that is damaged, of another kind, or not safe; then nothing of it is written,
    except where the damage shows only while reading.
    """
    try:
        with _open(src) as archive:
            listed = _zip_members(archive) if isinstance(archive, zipfile.ZipFile) else _tar_members(archive)
            chosen = plan(list(listed), src, patterns, flatten)
            os.makedirs(dest, exist_ok=True)
            for name, member in chosen.items():
                _write(member, os.path.join(dest, name))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error) as error:
        raise StackError(f"{src} is not a whole archive: {error}.") from error
    files = [member.size for member in chosen.values() if member.kind == "file"]
    return len(files), sum(files)
