"""Find the recipe's inputs by what they are called, and read them without any distribution's tools."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from debian.arfile import ArError
from debian.debfile import DebError, DebFile

from .errors import RecipeError


def normalise(project: str) -> str:
    """PyPI's comparison form of a project name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", project).lower()


@dataclass(frozen=True)
class Input:
    """One fetched and verified file, with the version its name declares."""

    path: Path
    version: str


class Inputs:
    """The files named in ``inputs.json``, looked up by the role that their names give them.

    Debian: ``<package>_<version>_<arch>.deb`` and ``<source>_<version>.orig.tar.gz``;
    PyPI: ``<project>-<version>-<tags>.whl`` and ``<project>-<version>.tar.gz`` or ``.zip``.
    """

    PATTERNS: ClassVar = {
        "deb": re.compile(r"^(?P<name>[^_]+)_(?P<version>[^_]+)_(amd64|all)\.deb$"),
        "orig": re.compile(r"^(?P<name>[^_]+)_(?P<version>[^_]+)\.orig\.tar\.\w+$"),
        "wheel": re.compile(r"^(?P<name>[^-]+)-(?P<version>[^-]+)-[^-]+-[^-]+-[^-]+\.whl$"),
        "sdist": re.compile(r"^(?P<name>[\w.-]+?)-(?P<version>\d[\w.]*)\.(tar\.gz|zip)$"),
    }

    def __init__(self, files: dict[str, Path]) -> None:
        self._found: dict[tuple[str, str], Input] = {}
        for filename, path in sorted(files.items()):
            kind, name, version = self._classify(filename)
            if (kind, name) in self._found:
                raise RecipeError(f"two inputs are the {kind} of {name}, one is {filename}: keep one in the lock.")
            if not path.is_file():
                raise RecipeError(f"input {filename} is not at {path}: fill the mirror again.")
            self._found[kind, name] = Input(path, version)

    @classmethod
    def read(cls, inputs_json: Path) -> Inputs:
        """Read a JSON object that maps each input's file name to its path."""
        try:
            files = json.loads(inputs_json.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"cannot read the list of inputs {inputs_json}: {error}") from error
        return cls({filename: Path(path) for filename, path in files.items()})

    @classmethod
    def _classify(cls, filename: str) -> tuple[str, str, str]:
        for kind, pattern in cls.PATTERNS.items():
            match = pattern.match(filename)
            if match:
                name = match["name"] if kind in ("deb", "orig") else normalise(match["name"])
                return kind, name, match["version"]
        raise RecipeError(f"input {filename} is neither a .deb, an .orig.tar, a wheel nor an sdist: remove it.")

    def get(self, kind: str, name: str) -> Input:
        """The input of one kind ('deb', 'orig', 'wheel', 'sdist') and name, or an error that says what to add."""
        key = name if kind in ("deb", "orig") else normalise(name)
        try:
            return self._found[kind, key]
        except KeyError:
            raise RecipeError(
                f"no {kind} of {name} among the inputs: add it to the recipe's inputs in the lock."
            ) from None


@dataclass(frozen=True)
class Member:
    """A regular file or a symbolic link inside an archive; ``name`` is relative, without a leading './'."""

    name: str
    data: bytes
    executable: bool = False
    link_target: str | None = None


def _members(archive: tarfile.TarFile) -> Iterator[Member]:
    """The files and symbolic links of a tar; its directories carry no information here."""
    for info in archive:
        name = str(PurePosixPath("/", info.name).relative_to("/"))
        if info.issym():
            yield Member(name, b"", link_target=info.linkname)
        elif info.isfile():
            handle = archive.extractfile(info)
            assert handle is not None
            yield Member(name, handle.read(), executable=bool(info.mode & 0o100))


def read_tar(path: Path) -> Iterator[Member]:
    """Yield the files and symbolic links of a compressed tar."""
    with tarfile.open(path) as archive:
        yield from _members(archive)


def read_zip(path: Path) -> Iterator[Member]:
    """Yield the files of a wheel or a zipped sdist."""
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if not info.is_dir():
                yield Member(info.filename, archive.read(info), executable=bool((info.external_attr >> 16) & 0o100))


def read_sdist(path: Path) -> Iterator[Member]:
    """Yield the files of an sdist, without its top folder."""
    members = read_zip(path) if path.suffix == ".zip" else read_tar(path)
    for member in members:
        _, _, name = member.name.partition("/")
        yield Member(name, member.data, member.executable, member.link_target)


def read_deb(path: Path) -> Iterator[Member]:
    """Yield the files that a Debian package installs."""
    try:
        with DebFile(path) as deb, deb.data.tgz() as archive:
            yield from _members(archive)
    except (ArError, DebError) as error:
        raise RecipeError(f"{path.name} cannot be read as a Debian package: {error}") from error
