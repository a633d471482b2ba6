"""Verified artifacts: where their bytes may come from, and downloads that resume.

A cache or mirror holds each file as `sha256/<hex>/<filename>`: the sum is the name, so that two files of one name
(NVIDIA reused some) never meet. What the mirror itself built lies in `built/<key>/` with its record. Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from typing import Any, Callable

from ansible.module_utils.stack_installs import StackError, sha256_of

Artifact = dict[str, Any]
CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
FILL_MIRROR = "Fill a mirror on a machine that can reach it: `ansible-playbook playbooks/mirror.yml`."


class OutOfTime(Exception):
    """The slice of time given to a download is over; what came so far is kept."""


def location(artifact: Artifact) -> str:
    """Path of an artifact relative to a cache."""
    return f"sha256/{artifact['sha256']}/{artifact['filename']}"


def mirrored_at(artifact: Artifact) -> str:
    """Path of an artifact relative to a mirror, where built ones lie with their record."""
    return f"built/{artifact['built']}/{artifact['filename']}" if "built" in artifact else location(artifact)


def is_url(text: str) -> bool:
    """Whether `text` is an address for a download rather than a folder."""
    return text.startswith(("http://", "https://", "file://"))


def without_secrets(url: str) -> str:
    """`url` without user name and password, for people's eyes."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def verified(path: str, artifact: Artifact) -> bool:
    """Whether the file at `path` has the artifact's size and sha256."""
    try:
        return os.path.getsize(path) == artifact["size"] and sha256_of(path) == artifact["sha256"]
    except OSError:
        return False


class _Links(HTMLParser):
    """The `href` of every file of a package index page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def file_links(page: str, base: str) -> dict[str, str]:
    """{filename: absolute URL} of a simple index page (PEP 503)."""
    parser = _Links()
    parser.feed(page)
    urls = [urllib.parse.urljoin(base, link).partition("#")[0] for link in parser.found]
    return {urllib.parse.unquote(url.rpartition("/")[2]): url for url in urls}


def _pip(*arguments: str) -> str:
    shown = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    return shown.stdout.strip() if shown.returncode == 0 else ""


def pypi_index() -> str:
    """The package index of this machine's own pip: its settings, else pip's built-in default; "" without pip."""
    set_here = os.environ.get("PIP_INDEX_URL") or _pip("config", "get", "global.index-url")
    if set_here:
        return set_here
    asked = subprocess.run(
        [sys.executable, "-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip()


def debian_mirrors(texts: list[str]) -> list[str]:
    """Mirror addresses in APT source files: `URIs:` fields (deb822) and `deb` lines, comments left out."""
    found: list[str] = []
    for text in texts:
        for line in text.splitlines():
            fields = re.match(r"URIs:\s*(.+)", line)
            one_line = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)", line)
            found += fields[1].split() if fields else [one_line[1]] if one_line else []
    return [uri.rstrip("/") for uri in dict.fromkeys(found) if uri.startswith("http")]


def _apt_sources() -> list[str]:
    folder = "/etc/apt/sources.list.d"
    names = ["/etc/apt/sources.list"]
    if os.path.isdir(folder):
        names += sorted(os.path.join(folder, name) for name in os.listdir(folder))
    texts = []
    for name in names:
        if name.endswith((".list", ".sources")) and os.path.isfile(name):
            with open(name, encoding="utf-8") as stream:
                texts.append(stream.read())
    return texts


class Upstream:
    """Where artifacts come from when neither cache nor mirror has them. Registry addresses are this machine's own."""

    def __init__(self, index: str = "", debian: str = "") -> None:
        self._index, self._debian = index, debian

    def urls(self, artifact: Artifact) -> list[str]:
        """Addresses to try for one artifact. Raises StackError when there is none to ask."""
        if artifact["source"] == "url":
            return list(artifact["urls"])
        if artifact["source"] == "debian":
            bases = [self._debian] if self._debian else debian_mirrors(_apt_sources())
            if not bases:
                raise StackError(
                    f"{artifact['filename']} is a Debian package and this machine has no Debian mirror in its APT "
                    f"settings. Set stack_debian_mirror to one, or: {FILL_MIRROR}"
                )
            return [f"{base}/{artifact['path']}" for base in bases]
        self._index = self._index or pypi_index()
        if not self._index:
            raise StackError(
                f"{artifact['filename']} is a Python package and this machine's Python has no pip to tell which "
                f"index to ask. Set stack_pypi_index, or: {FILL_MIRROR}"
            )
        project = re.sub(r"[-_.]+", "-", artifact["project"]).lower()
        base = f"{self._index.rstrip('/')}/{project}/"
        with open_url(base) as page:
            links = file_links(page.read().decode(), base)
        return [links[artifact["filename"]]] if artifact["filename"] in links else []


def open_url(url: str, offset: int = 0) -> Any:
    """Open `url`, from byte `offset` on. Proxies and CA bundles are those of the environment. Raises OSError."""
    request = urllib.request.Request(url, headers={"User-Agent": "detectron-stack"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def download(url: str, part: str, size: int, report: Callable[[int], None]) -> None:
    """Bring `url` to the file `part`, going on where an earlier try stopped.

    `report` gets the bytes there so far after each piece, and may raise OutOfTime. Raises OSError when the address
    does not answer, answers short, or sends more than `size` bytes.
    """
    have = os.path.getsize(part) if os.path.exists(part) else 0
    if have > size:
        os.unlink(part)
        have = 0
    if have == size:
        return
    with open_url(url, have) as answer:
        if have and answer.status != 206:
            have = 0
        with open(part, "r+b" if have else "wb") as stream:
            stream.seek(have)
            while chunk := answer.read(CHUNK):
                stream.write(chunk)
                have += len(chunk)
                if have > size:
                    raise OSError(f"sends more than the expected {size} bytes")
                report(have)
    if have != size:
        raise OSError(f"ended after {have} of {size} bytes")


class Fetcher:
    """Brings artifacts into `cache`, or finds them in a mirror folder of this machine, within a slice of time."""

    def __init__(self, cache: str, mirror: str, upstream: Upstream | None, seconds: float) -> None:
        self.cache, self.mirror, self.upstream = cache, mirror, upstream
        self.deadline = time.monotonic() + seconds
        self.progress: dict[str, int] = {}

    def resolve(self, artifact: Artifact) -> Artifact:
        """`artifact` itself, or for a built one what the mirror's record says of its file."""
        if "sha256" in artifact:
            return artifact
        where = f"built/{artifact['built']}/artifact.json"
        try:
            if is_url(self.mirror):
                with open_url(f"{self.mirror.rstrip('/')}/{where}") as answer:
                    record = json.load(answer)
            else:
                with open(os.path.join(self.mirror, where), encoding="utf-8") as stream:
                    record = json.load(stream)
        except (OSError, ValueError) as error:
            raise StackError(
                f"{artifact['filename']} is built, not downloaded, and the mirror "
                f"{without_secrets(self.mirror) or '(none is set)'} does not have it. {FILL_MIRROR}"
            ) from error
        return {**artifact, "sha256": record["sha256"], "size": record["size"]}

    def find(self, artifact: Artifact) -> str:
        """Path of a verified copy in the cache (a complete part included) or in a mirror folder; "" without one."""
        part = self.part(artifact)
        if os.path.exists(part) and os.path.getsize(part) == artifact["size"] and self.adopt(artifact):
            return part[: -len(".part")]
        path = os.path.join(self.cache, location(artifact))
        if verified(path, artifact):
            return path
        path = os.path.join(self.mirror, mirrored_at(artifact))
        return path if self.mirror and not is_url(self.mirror) and verified(path, artifact) else ""

    def part(self, artifact: Artifact) -> str:
        """Path of the unfinished copy in the cache, its folder made."""
        folder = os.path.join(self.cache, "sha256", artifact["sha256"])
        os.makedirs(folder, exist_ok=True)
        return os.path.join(folder, artifact["filename"] + ".part")

    def adopt(self, artifact: Artifact) -> str:
        """Verify a complete part and give it its name. Returns the path; "" (and the part removed) if it is wrong."""
        part = self.part(artifact)
        if not verified(part, artifact):
            os.unlink(part)
            return ""
        os.replace(part, part[: -len(".part")])
        return part[: -len(".part")]

    def _report(self, name: str, have: int) -> None:
        self.progress[name] = have
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def fetch(self, artifact: Artifact) -> tuple[str, str]:
        """(path, origin) of a copy fetched and verified now. Raises OutOfTime, or StackError naming what each source answered."""
        name, tried = artifact["filename"], []
        urls = [f"{self.mirror.rstrip('/')}/{mirrored_at(artifact)}"] if is_url(self.mirror) else []
        for origin in ("mirror", "upstream"):
            if origin == "upstream":
                if self.upstream is None or "source" not in artifact:
                    continue
                try:
                    urls = self.upstream.urls(artifact)
                except OSError as error:
                    tried.append(f"the package index: {error}")
                    continue
            for url in urls:
                try:
                    download(url, self.part(artifact), artifact["size"], lambda have: self._report(name, have))
                except (OSError, http.client.HTTPException) as error:
                    if getattr(error, "errno", None) in (28, 122):  # ENOSPC, EDQUOT
                        raise StackError(f"No space for {name} below {self.cache}: {error.args[1]}.") from error
                    tried.append(f"{without_secrets(url)}: {error}")
                    continue
                path = self.adopt(artifact)
                if path:
                    return path, without_secrets(url)
                tried.append(f"{without_secrets(url)}: its bytes do not have the locked sha256 {artifact['sha256']}")
        raise StackError(f"{name} could not be fetched. Tried: {'; '.join(tried) or 'no source'}. {FILL_MIRROR}")


def git(git_dir: str, *arguments: str, timeout: float = 600) -> str:
    """Run git on the bare repository `git_dir`; "" when it succeeds, else the last line of what it says."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(variable, None)
    # A repository of another user (a shared folder) is only read: git's check of its owner is not for that.
    command = ["git", "-c", "safe.directory=*", f"--git-dir={git_dir}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout, check=False)
    except FileNotFoundError:
        raise StackError(
            "git is not installed here. Fill a mirror on the controller (playbooks/mirror.yml): sources are then "
            "exported there and pushed."
        ) from None
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]


def export_commit(repositories: list[str], commit: str, tar: str, timeout: float) -> str:
    """`git archive` of `commit`, from the first repository that has it, to the file `tar`. Returns that repository.

    Raises StackError naming what each repository answered.
    """
    tried = []
    for repository in repositories:
        with tempfile.TemporaryDirectory(dir=os.path.dirname(tar)) as work:
            git(work, "init", "--quiet", "--bare", work)
            said = git(work, "fetch", "--quiet", "--depth=1", repository, commit, timeout=timeout)
            if said:  # old servers do not hand out a commit by its id: bring all of it
                said = git(work, "fetch", "--quiet", repository, "+refs/*:refs/fetched/*", timeout=timeout)
            said = said or git(work, "archive", "--format=tar", f"--output={tar}", commit)
        if not said:
            return without_secrets(repository)
        tried.append(f"{without_secrets(repository)}: {said}")
    raise StackError(f"Commit {commit} could not be had. Tried: {'; '.join(tried)}. {FILL_MIRROR}")
