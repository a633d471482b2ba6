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
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO

from ansible.module_utils.stack_installs import StackError
from ansible.module_utils.stack_lookup import seen_at

AR_MAGIC = b"!<arch>\n"
LINK_HOPS = 40  # as many as Linux follows

# What the readers raise on archives that are cut, damaged, encrypted, or packed in a way that they do not know.
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error),
    *(EOFError, RuntimeError, ValueError, KeyError),
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive. `link` is a symbolic link's target; `open` yields a file's bytes."""

    name: str
    kind: str  # "file" | "dir" | "link"
    mode: int
    size: int = 0
    link: str = ""
    open: Callable[[], IO[bytes] | None] = lambda: None


def _tar_members(archive: tarfile.TarFile, name: str) -> Iterator[Member]:
    files: dict[str, tarfile.TarInfo] = {}
    for info in archive:
        if info.islnk():
            # Unpacked as a copy of the file that it names, which must be one that the archive has brought before.
            if info.linkname not in files:
                raise StackError(f"{name} holds a hard link {info.name} to {info.linkname}, not in it: refused.")
            files[info.name] = files[info.linkname]
        elif info.isfile():
            files[info.name] = info
        if info.isdir():
            yield Member(info.name, "dir", info.mode)
        elif info.issym():
            yield Member(info.name, "link", 0, link=info.linkname)
        elif info.isfile() or info.islnk():
            file = files[info.name]
            yield Member(info.name, "file", file.mode, file.size, open=partial(archive.extractfile, file))
        else:
            raise StackError(f"{name} holds {info.name}, which is a device or a pipe: refused.")


def _zip_members(archive: zipfile.ZipFile, name: str) -> Iterator[Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if info.is_dir():
            yield Member(info.filename, "dir", 0o755)
        elif stat.S_ISLNK(mode):
            yield Member(info.filename, "link", 0, link=archive.read(info).decode())
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise StackError(f"{name} holds {info.filename}, which is not a file, folder or link: refused.")
        else:
            opened = partial(archive.open, info)
            yield Member(info.filename, "file", mode or 0o644, info.file_size, open=opened)


def safe_name(name: str, archive: str) -> str:
    """`name` normalised; "" for the archive's own root. Raises StackError when it leads out of the folder."""
    clean = posixpath.normpath(name)
    if name.startswith("/") or "\\" in name or clean == ".." or clean.startswith("../") or "\0" in name:
        raise StackError(f"{archive} holds a member named {name!r}, which leads outside its folder: refused.")
    return "" if clean == "." else clean


def leads_out(path: str, links: dict[str, str]) -> bool:
    """Whether `path`, relative to the folder and followed as the kernel does, leaves the folder by `..` or a `/`.

    `links`: target by path of the archive's symbolic links. (Of `d/up -> ..` and `out -> d/up/..` each looks harmless.)
    """
    done: list[str] = []
    todo = path.split("/")
    hops = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            if not done:
                return True
            done.pop()
        elif part not in ("", "."):
            done.append(part)
            target = links.get("/".join(done))
            if target is not None:
                hops += 1
                if target.startswith("/") or hops > LINK_HOPS:
                    return True
                done.pop()
                todo = [*target.split("/"), *todo]
    return False


def plan(members: list[Member], archive: str, patterns: list[str], flatten: bool) -> dict[str, Member]:
    """{path below the destination: member}, checked as a whole before anything is written. Raises StackError."""
    chosen: dict[str, Member] = {}
    unmatched = set(patterns)
    for member in members:
        name = safe_name(member.name, archive)
        matching = {pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)}
        unmatched -= matching
        if not name or (patterns and not matching) or (flatten and member.kind == "dir"):
            continue
        if flatten:
            name = posixpath.basename(name)
            if name in chosen and chosen[name].name != member.name:
                raise StackError(f"{archive} holds {name} in several folders: without its folders, one would be lost.")
        chosen[name] = member
    if unmatched:
        raise StackError(f"{archive} holds nothing named {', '.join(sorted(unmatched))}. Is it the right archive?")
    links = {name: member.link for name, member in chosen.items() if member.kind == "link"}
    for name, member in chosen.items():
        if name in links and leads_out(name, links):
            raise StackError(f"{archive} holds a link {name} to {member.link}, outside its folder: refused.")
        above = posixpath.dirname(name)
        while above:
            if above in chosen and chosen[above].kind != "dir":
                raise StackError(f"{archive} holds {name} below {above}, which is no folder: refused.")
            above = posixpath.dirname(above)
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
    source = member.open()
    if source is None:
        raise StackError(f"{member.name} cannot be read from its archive: refused.")
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
def _members(src: str) -> Iterator[list[Member]]:
    """What the archive holds, whatever its kind; it stays open for reading. Raises StackError, OSError, DAMAGED."""
    with contextlib.ExitStack() as opened:
        stream = opened.enter_context(open(src, "rb"))
        magic = stream.read(len(AR_MAGIC))
        stream.seek(0)
        # By how it begins: zipfile would take a tar whose last file is a zip for a zip.
        if magic.startswith(b"PK"):
            yield list(_zip_members(opened.enter_context(zipfile.ZipFile(stream)), src))
        else:
            data = _deb_data(stream, src) if magic == AR_MAGIC else stream
            yield list(_tar_members(opened.enter_context(tarfile.open(fileobj=data)), src))


def unpack(src: str, dest: str, patterns: list[str], flatten: bool) -> tuple[int, int]:
    """Unpack `src` (tar in any compression, zip, wheel or Debian package) below `dest`. Returns (files, bytes).

    Raises StackError for an archive that is damaged, of another kind, or not safe; then nothing of it is written,
    except where the damage shows only while reading.
    """
    try:
        with _members(src) as members:
            chosen = plan(members, src, patterns, flatten)
            os.makedirs(dest, exist_ok=True)
            with seen_at(dest):
                for name, member in chosen.items():
                    _write(member, os.path.join(dest, name))
    except DAMAGED as error:
        why = str(error).partition("\n")[0]
        raise StackError(f"{src} is not a whole archive (tar, zip, wheel or Debian package): {why}.") from error
    files = [member.size for member in chosen.values() if member.kind == "file"]
    return len(files), sum(files)
