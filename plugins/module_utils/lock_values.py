"""Finds what a lock lacks: names, sums and sizes of files, commit ids, submodules; and says whose word each is.

What is downloaded for it goes into the mirror, where a later run looks for it.

Runs on the controller alone: Python >= 3.11, packaging.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import posixpath
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.stack_fetch import (
    NO_ANSWER,
    SOURCES,
    Upstream,
    download,
    file_links,
    file_sums,
    is_url,
    keep_origin,
    location,
    open_url,
    run_git,
    without_secrets,
)
from ansible.module_utils.stack_installs import StackError, digest, sha256_of
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

PLATFORMS = [f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")]
# What the Python of every stack takes, best first.
TAGS = [*cpython_tags((2, 7), ["cp27mu"], PLATFORMS), *compatible_tags((2, 7), "cp27", PLATFORMS)]
BESIDE = ((".sha256", "sha256", 64), (".md5sum", "md5", 32), (".md5", "md5", 32))
GIT_TIMEOUT = 120.0  # seconds

Show = Callable[[str, int, int], None]


class _Shown(io.FileIO):
    """An unbuffered file that tells how much of it there is at each write."""

    def __init__(self, path: Path, mode: str, size: int, show: Show) -> None:
        super().__init__(path, mode)
        self._shown_as, self._size, self._show = path.name.partition("-")[2], size, show

    def write(self, data: Any) -> int:
        written = super().write(data) or 0
        self._show(self._shown_as, self.tell(), self._size)
        return written


def best_file(names: list[str], version: str) -> str:
    """The file of a package's version that Python 2.7 takes: the best wheel, else the source. Raises StackError."""
    ranked = []
    for name in names:
        try:
            _project, of, *_build, tags = parse_wheel_filename(name)
            rank = min((TAGS.index(tag) for tag in tags if isinstance(tag, Tag) and tag in TAGS), default=None)
        except InvalidWheelFilename:
            try:
                (_project, of), rank = parse_sdist_filename(name), len(TAGS)
            except (InvalidSdistFilename, InvalidVersion):
                continue
        if rank is not None and of == Version(version):
            ranked.append((rank, name))
    if not ranked:
        raise StackError(
            f"the package index has no file of version {version} for Python 2.7 (cp27mu) on x86_64; give the filename"
        )
    return min(ranked)[1]


class Files:
    """Names, sums and sizes of a lock's files."""

    def __init__(self, mirror: Path, upstream: Upstream, show: Show) -> None:
        self.mirror, self._upstream, self._show = mirror, upstream, show

    def find(self, entry: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """({filename, sha256, size}, whose word that is) of one file of a lock; afterwards the mirror has it.

        Raises StackError and NO_ANSWER with the reason why it cannot be known, OSError where the mirror cannot be
        written.
        """
        missing = {"pypi": ("project", "version"), "debian": ("path",), "url": ("urls",)}.get(entry["source"])
        if missing is None:
            raise StackError(f"source is {entry['source']!r}: use pypi, debian or url")
        if absent := [key for key in missing if not entry.get(key)]:
            raise StackError(f"a file of source {entry['source']} needs {' and '.join(absent)} as well")
        filename, urls, stated = self._published(entry)
        expected = entry.get("sha256") or stated
        if stated and expected != stated:
            raise StackError(f"the lock has sha256 {expected}, the package index states {stated}")
        if filename != posixpath.basename(filename) or filename in ("", ".", ".."):
            raise StackError(f"{filename!r} is no name of a file; give its filename")
        path, url = self._kept(filename, expected) or self._fetch(filename, urls, expected)
        size = path.stat().st_size
        if entry.get("size") not in (None, size):
            raise StackError(f"it has {size} bytes, the lock says {entry['size']}")
        if expected:
            word = "the package index states the same sha256" if stated else "the sha256 is the one that the lock had"
        else:
            word = _beside(url, path) or _one_download(url)
        return {"filename": filename, "sha256": path.parent.name, "size": size}, word

    def find_in_channel(self, url: str, record: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """(file of a lock, whose word its sum is) of a conda package, which its channel's index describes as `record`.

        Afterwards the mirror has it. Raises StackError and NO_ANSWER as `find` does.
        """
        filename = urllib.parse.unquote(posixpath.basename(url))
        stated = str(record.get("sha256") or "")
        path, _url = self._kept(filename, stated) or self._fetch(filename, [url], stated)
        size = path.stat().st_size
        with path.open("rb") as stream:
            md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        for what, actual in (("size", size), ("md5", md5)):
            if record.get(what) not in (None, actual):
                raise StackError(f"its {what} is {actual}, but its channel states {record[what]}")
        if stated:
            word = "its channel states the same sha256"
        elif record.get("md5"):
            word = "computed from one download; its channel states the same md5"
        else:
            word = _one_download(url)
        entry = {"filename": filename, "source": "url", "urls": [url], "sha256": path.parent.name, "size": size}
        return {**entry, "licence": record.get("license") or None}, word

    def _published(self, entry: dict[str, Any]) -> tuple[str, list[str], str]:
        """(filename, addresses, sha256 stated by the publisher or "") of a file."""
        filename = entry.get("filename")
        if entry["source"] == "pypi":
            page, base = self._upstream.index_page(entry["project"])
            links = file_links(page, base)
            filename = filename or best_file(list(links), str(entry["version"]))
            if filename not in links:
                raise StackError(f"{without_secrets(base)} does not list it")
            return filename, [links[filename]], file_sums(page).get(filename, "")
        urls = [url for source in SOURCES for url in self._upstream.urls(entry, source)]
        return filename or urllib.parse.unquote(posixpath.basename(urllib.parse.urlsplit(urls[0]).path)), urls, ""

    def _kept(self, filename: str, sha256: str) -> tuple[Path, str] | None:
        """(path in the mirror, "") of a file whose sum is known before, where the mirror has it."""
        path = self.mirror / location({"filename": filename, "sha256": sha256})
        return (path, "") if sha256 and path.is_file() and sha256_of(str(path)) == sha256 else None

    def _fetch(self, filename: str, urls: list[str], expected: str) -> tuple[Path, str]:
        """(path in the mirror, address) of a file that is downloaded now."""
        tried = []
        for url in urls:
            part = self.mirror / "tmp" / f"{digest(url)}-{filename}"
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Going on with a part is safe only where a sum will tell whether it was the same file.
                self._download(url, part, resume=bool(expected))
            except NO_ANSWER as error:
                tried.append(f"{without_secrets(url)}: {error}")
                continue
            sha256 = str(sha256_of(str(part)))
            if expected and sha256 != expected:
                part.unlink()
                tried.append(f"{without_secrets(url)}: its bytes have sha256 {sha256}, not {expected}")
                continue
            path = self.mirror / location({"filename": filename, "sha256": sha256})
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, path)
            keep_origin(str(path), without_secrets(url))
            return path, url
        raise StackError("; ".join(tried))

    def _download(self, url: str, part: Path, resume: bool) -> None:
        with open_url(url) as answer:
            length = answer.headers.get("Content-Length")
        if length is None:
            raise ValueError("does not say how long the file is, so a cut download could not be told from a whole one")
        size = int(length)
        if resume and part.is_file() and part.stat().st_size == size:
            return  # the run that brought it was killed before it gave it its place
        with _Shown(part, "ab" if resume else "wb", size, self._show) as stream:
            download(url, stream, size, deadline=math.inf)


def _beside(url: str, path: Path) -> str:
    """Whose word a sum is that lies beside the file at its publisher's; "" when there is none.

    Raises StackError where it is not the sum of the file at `path`.
    """
    for suffix, algorithm, digits in BESIDE if is_url(url) and "?" not in url else ():
        try:
            with open_url(url + suffix) as answer:
                stated = re.match(rf"\s*([0-9a-f]{{{digits}}})\b", answer.read(4096).decode().lower())
        except NO_ANSWER:
            continue
        if stated:
            with path.open("rb") as stream:
                actual = hashlib.file_digest(stream, algorithm).hexdigest()
            if actual != stated[1]:
                raise StackError(f"its {algorithm} is {actual}, but {without_secrets(url)}{suffix} says {stated[1]}")
            return f"computed from one download; the publisher's {posixpath.basename(url)}{suffix} agrees"
    return ""


def _one_download(url: str) -> str:
    over = {"https": "https", "http": "http, which anybody on the way can alter"}
    return (
        f"computed from one download over {over.get(url.partition(':')[0], 'a local path')}; nobody else's word for it"
    )


class Repositories:
    """Commit ids and submodules of a lock's git repositories."""

    def __init__(self, mirror: Path) -> None:
        self.mirror = mirror

    def find(self, entry: dict[str, Any], lacks: tuple[str, ...], name: str) -> tuple[dict[str, Any], str]:
        """({commit, submodules}, whose word that is) of one repository of a lock. Raises StackError."""
        repository, commit, word = entry["repository"], str(entry.get("commit") or ""), ""
        found: dict[str, Any] = {}
        if "commit" in lacks:
            commit, what = resolve_ref(repository, commit)
            found["commit"] = commit
            word = f"{what} of {without_secrets(repository)} as git ls-remote tells it now"
        if "submodules" in lacks:
            found["submodules"] = self._submodules(repository, commit, self.mirror / "git" / f"{name}.git")
            word += f"{'; ' if word else ''}the submodules that commit {commit[:12]} records"
        return found, word

    def _submodules(self, repository: str, commit: str, path: Path) -> list[dict[str, str]]:
        """[{path, repository, commit}] of a commit, which is fetched into the mirror's repository `path`."""
        git_dir = f"--git-dir={path}"
        path.mkdir(parents=True, exist_ok=True)
        _git("init", "--quiet", "--bare", str(path))
        _git(git_dir, "fetch", "--quiet", "--depth=1", "--", repository, f"{commit}:refs/heads/{commit}")
        _git(git_dir, "update-server-info")  # for a mirror that is served by a plain web server
        tree = [line.partition("\t") for line in _git(git_dir, "ls-tree", "-r", commit).splitlines()]
        links = {name: entry.split()[2] for entry, _tab, name in tree if entry.startswith("160000 ")}
        if not links:
            return []
        listed = _git(git_dir, "config", "--blob", f"{commit}:.gitmodules", "--list")
        modules: dict[str, dict[str, str]] = {}
        for key, value in re.findall(r"^submodule\.(.+?)=(.*)$", listed, re.MULTILINE):
            module, _dot, field = key.rpartition(".")
            modules.setdefault(module, {})[field] = value
        urls = {module.get("path", ""): module.get("url", "") for module in modules.values()}
        return [
            {"path": name, "repository": _absolute(repository, urls.get(name, "")), "commit": link}
            for name, link in links.items()
        ]


def resolve_ref(repository: str, name: str) -> tuple[str, str]:
    """(full commit id, what it is) of a branch or tag, of the default branch where `name` is "". Raises StackError."""
    patterns = [f"refs/heads/{name}", f"refs/tags/{name}", f"refs/tags/{name}^{{}}"] if name else ["HEAD"]
    lines = _git("ls-remote", "--", repository, *patterns).splitlines()
    found = {ref: commit for commit, ref in (line.split("\t") for line in lines)}
    # An annotated tag is an object of its own; ^{} is the commit that it is about.
    tag = found.get(patterns[-1]) or found.get(f"refs/tags/{name}")
    branch = found.get(f"refs/heads/{name}")
    if not name and tag:
        return tag, "the default branch"
    if tag and branch:
        raise StackError(f"{name!r} is both a branch ({branch}) and a tag ({tag}): choose one of the two ids")
    if not tag and not branch:
        raise StackError(f"{without_secrets(repository)} has no branch or tag {name!r} (a commit id needs 40 digits)")
    return (tag, f"tag {name}") if tag else (str(branch), f"branch {name}")


def _absolute(repository: str, url: str) -> str:
    """A submodule's address, which may be relative to its repository's."""
    if not url.startswith(("./", "../")):
        return url
    scheme, mark, path = repository.rpartition("://")
    return f"{scheme}{mark}{posixpath.normpath(posixpath.join(path, url))}"


def _git(*arguments: str) -> str:
    """What git prints. Raises StackError with what it says when it fails."""
    said, printed = run_git(*arguments, timeout=GIT_TIMEOUT)
    if said:
        raise StackError(said)
    return str(printed)
