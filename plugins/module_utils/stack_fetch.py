"""Verified artifacts: where their bytes may come from, and downloads that resume.

A cache or mirror holds each file as `sha256/<hex>/<filename>`: the sum is the name, so that two files of one name
(NVIDIA reused some) never meet. What the mirror itself built lies in `built/<key>/` with its record.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import base64
import errno
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from typing import IO, Any

from ansible.module_utils.stack_installs import StackError, sha256_of
from ansible.module_utils.stack_network import ADVICE, advice, git_environment, said_by_git, send

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
NOTHING = "nothing, for stack_upstream is false and no mirror has it"
FILL_MIRROR = "Fill a mirror on a machine that can reach it: `ansible-playbook playbooks/mirror.yml`."
MANIFEST = "manifest.json"  # of a mirror
ORIGIN = ".origin"  # beside a fetched file, and named after it: a text that says where its bytes came from

# Where a file may come from, in this order: see Upstream.
SOURCES = ("upstream", "registries")

# How an address fails, beside OSError: a broken answer, an address that is none, a page that is no text.
NO_ANSWER = (OSError, http.client.HTTPException, ValueError)


class OutOfTime(Exception):
    """The slice of time given to a download is over; what came so far is kept."""


def sum_of(artifact: dict[str, Any]) -> str:
    """The kind of sum by which an artifact is known: sha256, or md5 where its source states no other."""
    return "sha256" if "sha256" in artifact else "md5"


def location(artifact: dict[str, Any]) -> str:
    """Path of an artifact relative to a cache."""
    return f"{sum_of(artifact)}/{artifact[sum_of(artifact)]}/{artifact['filename']}"


def mirrored_at(artifact: dict[str, Any]) -> str:
    """Path of an artifact relative to a mirror, where built ones lie with their record."""
    if "mirrored_at" in artifact:
        return str(artifact["mirrored_at"])
    return f"built/{artifact['built']}/{artifact['filename']}" if "built" in artifact else location(artifact)


def is_url(text: str) -> bool:
    """Whether `text` is an address for a download rather than a folder."""
    return text.startswith(("http://", "https://", "file://"))


def in_mirror(mirror: str, path: str) -> str:
    """Where `path` lies in `mirror`, a URL or a folder; "" without a mirror."""
    if is_url(mirror):
        return f"{mirror.rstrip('/')}/{urllib.parse.quote(path)}"
    return os.path.join(mirror, path) if mirror else ""


def without_secrets(url: str) -> str:
    """`url` without user name, password and query, for people's eyes."""
    shown = re.sub(r"^(\w[\w+.-]*://)[^/?#]*@", r"\1", url)
    return re.sub(r"[?#].*", "?…", shown) if is_url(url) else shown


def _json_at(where: str) -> Any:
    with open_url(where) if is_url(where) else open(where, "rb") as stream:
        return json.load(stream)


def resolve(artifact: dict[str, Any], mirror: str, read: Callable[[str], Any] = _json_at) -> dict[str, Any]:
    """`artifact` itself, or for a built one with the sum and size that the mirror recorded of its file.

    `read`: gives the JSON at a place of the mirror, or raises NO_ANSWER. Raises StackError where the mirror does not
    have it, or where its manifest says something else of it.
    """
    if "built" not in artifact or "sha256" in artifact:
        return artifact
    where = in_mirror(mirror, f"built/{artifact['built']}/artifact.json")
    try:
        record = read(where)
        known = {**artifact, "sha256": record["sha256"], "size": record["size"]}
        if not listed(read(in_mirror(mirror, MANIFEST)), artifact["built"], record):
            raise StackError(
                f"{without_secrets(where)} is not what {MANIFEST} of the mirror says of {artifact['filename']}: one of "
                "both was edited, or the run that built it did not end. Nothing of it was used. "
                "`ansible-playbook playbooks/mirror.yml` builds it again; with `--tags verify` it checks all the rest."
            )
        return known
    except (*NO_ANSWER, KeyError, TypeError, AttributeError) as error:
        why = f"{without_secrets(where)}: {error}" if mirror else "no mirror is set"
        raise StackError(
            f"{artifact['filename']} is built, not downloaded, and the mirror does not have it for this recipe and "
            f"these inputs ({why}). {advice(why) or 'Build it: `ansible-playbook playbooks/mirror.yml`.'}"
        ) from error


def listed(manifest: dict[str, Any], folder: str, record: dict[str, Any]) -> bool:
    """Whether a mirror's manifest says of the built artifact in `folder` all that its own record says."""
    return any(
        entry.get("folder", folder) == folder and all(entry.get(key) == value for key, value in record.items())
        for entry in manifest.get("built", [])
    )


def verified(path: str, artifact: dict[str, Any]) -> bool:
    """Whether the file at `path` has the artifact's size and sum."""
    kind = sum_of(artifact)
    try:
        return os.path.getsize(path) == artifact["size"] and bool(sha256_of(path, kind) == artifact[kind])
    except OSError:
        return False


def origin_of(path: str) -> str:
    """Where the file at `path` was fetched from, as written beside it; "" where nothing is."""
    try:
        with open(path + ORIGIN, encoding="utf-8") as stream:
            return stream.read().strip()
    except (OSError, ValueError):
        return ""


def keep_origin(path: str, origin: str) -> None:
    """Write beside the file at `path` where it came from."""
    with open(f"{path}{ORIGIN}.new", "w", encoding="utf-8") as stream:
        stream.write(f"{origin}\n")
    os.replace(f"{path}{ORIGIN}.new", path + ORIGIN)


def all_errors(errors: list[str]) -> str:
    """One message of the messages about several artifacts, the common remedy once."""
    if len(errors) == 1:
        return errors[0]
    remedies = [FILL_MIRROR, *(sentence for _pattern, sentence in ADVICE)]
    common = [remedy for remedy in remedies if any(remedy in error for error in errors)]
    for remedy in common:
        errors = [error.replace(f" {remedy}", "") for error in errors]
    return " ".join([f"{len(errors)} files could not be had.", *errors, *common])


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


def file_sums(page: str) -> dict[str, str]:
    """{filename: sha256} of those files of a simple index page whose sum it states."""
    parser = _Links()
    parser.feed(page)
    stated = [link.partition("#sha256=") for link in parser.found if "#sha256=" in link]
    return {urllib.parse.unquote(link.rpartition("/")[2]): sha256 for link, _mark, sha256 in stated}


def _python(*arguments: str) -> str:
    """What this machine's Python prints; "" when it fails."""
    try:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def pypi_index() -> str:
    """The package index of this machine's own pip: its settings, else pip's built-in default; "" without pip."""
    return (
        os.environ.get("PIP_INDEX_URL")
        or _python("-m", "pip", "config", "get", "global.index-url")
        or _python("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)")
    )


def debian_mirrors(texts: list[str]) -> list[str]:
    """Mirror addresses in APT source files: `URIs:` fields (deb822) and `deb` lines, comments left out."""
    found: list[str] = []
    for text in texts:
        for line in text.splitlines():
            fields = re.match(r"URIs:\s*(.+)", line, re.IGNORECASE)
            one_line = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)", line)
            found += fields[1].split() if fields else [one_line[1]] if one_line else []
    return [uri for uri in dict.fromkeys(uri.rstrip("/") for uri in found) if is_url(uri)]


def _apt_sources() -> list[str]:
    folder = "/etc/apt/sources.list.d"
    names = ["/etc/apt/sources.list"]
    if os.path.isdir(folder):
        names += sorted(os.path.join(folder, name) for name in os.listdir(folder))
    texts = []
    for name in names:
        if name.endswith((".list", ".sources")) and os.path.isfile(name):
            with open(name, encoding="utf-8", errors="replace") as stream:
                texts.append(stream.read())
    return texts


class Upstream:
    """Where artifacts come from when neither cache nor mirror has them: `sources`, in that order.

    "upstream": the addresses that the lock itself names. "registries": PyPI and Debian, whose addresses are this
    machine's own.
    """

    def __init__(self, index: str = "", debian: str = "", sources: Iterable[str] = SOURCES) -> None:
        self._index, self._debian, self.sources = index, debian, list(sources)
        self._asking = threading.Lock()

    def urls(self, artifact: dict[str, Any], source: str) -> list[str]:
        """Addresses of one artifact at one of the sources. Raises ValueError where a registry has none, NO_ANSWER."""
        if source == "upstream":
            return list(artifact.get("urls", []))
        if artifact["source"] == "url":
            return []
        if artifact["source"] == "debian":
            bases = [self._debian] if self._debian else debian_mirrors(_apt_sources())
            if not bases:
                raise ValueError("no Debian mirror in this machine's APT settings (stack_debian_mirror names one)")
            return [f"{base.rstrip('/')}/{urllib.parse.quote(artifact['path'])}" for base in bases]
        page, base = self.index_page(artifact["project"])
        links = file_links(page, base)
        if artifact["filename"] not in links:
            raise ValueError(f"{without_secrets(base)} does not list it")
        return [links[artifact["filename"]]]

    def index_page(self, project: str) -> tuple[str, str]:
        """(page, address that its links are relative to) of a project on the package index. Raises NO_ANSWER."""
        with self._asking:  # pip, once, even when several threads want to know
            self._index = self._index or pypi_index()
        if not self._index:
            raise ValueError("no pip on this machine tells which package index to ask (stack_pypi_index names one)")
        base = f"{self._index.rstrip('/')}/{re.sub(r'[-_.]+', '-', project).lower()}/"
        with open_url(base) as page:
            # Where the page really is, but without the secrets that a redirect drops.
            return page.read().decode(), base if page.url == without_secrets(base) else page.url


def open_url(url: str, offset: int = 0) -> Any:
    """Open `url`, from byte `offset` on, by the proxy and with the CA bundle of stack_network. Raises NO_ANSWER."""
    parts = urllib.parse.urlsplit(url)
    address = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(address, headers={"User-Agent": "detectron-stack"})
    if parts.username:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        # Unredirected: not for the host that a redirect leads to.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    return send(request, TIMEOUT)


def download(url: str, part: IO[bytes], size: int, deadline: float, at_least: float = 0.0) -> None:
    """Bring `url` to the unbuffered file `part`, going on from where it stands.

    Raises OutOfTime after `deadline` (of time.monotonic), but not before it has read for `at_least` seconds: where
    answers take long to begin, a slice of time would otherwise bring next to nothing. Raises NO_ANSWER when the address
    does not answer, answers short, or has more than `size` bytes.
    """
    have = part.seek(0, os.SEEK_END)
    with open_url(url, have) as answer:
        if have and not (answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")):
            have = part.seek(0)
            part.truncate()
        deadline = max(deadline, time.monotonic() + at_least)
        while chunk := answer.read1(CHUNK):
            have += len(chunk)
            if have > size:
                part.truncate(0)
                raise OSError(f"has more than the expected {size} bytes")
            part.write(chunk)
            if time.monotonic() > deadline and have < size:
                raise OutOfTime
    if have < size:
        raise OSError(f"ended after {have} of {size} bytes")


class Fetcher:
    """Brings artifacts into `cache`, or finds them in a mirror folder of this machine, until a deadline.

    The unfinished copy of a file lies beside its place, as `<filename>.part`. Several threads may fetch at once,
    each another artifact.
    """

    def __init__(self, cache: str, mirror: str, upstream: Upstream | None, seconds: float) -> None:
        self.cache, self.mirror, self.upstream = cache, mirror, upstream
        self.seconds, self.deadline = seconds, time.monotonic() + seconds

    def in_time(self) -> bool:
        """Whether the deadline is still to come."""
        return time.monotonic() < self.deadline

    def path(self, artifact: dict[str, Any]) -> str:
        """Path of an artifact in the cache."""
        return os.path.join(self.cache, location(artifact))

    def missing(self, artifact: dict[str, Any]) -> dict[str, Any]:
        """`artifact` with C(part), the path of its unfinished copy, and C(have), the bytes in it."""
        part = self.path(artifact) + ".part"
        os.makedirs(os.path.dirname(part), exist_ok=True)
        return {**artifact, "part": part, "have": os.path.getsize(part) if os.path.exists(part) else 0}

    def find(self, artifact: dict[str, Any]) -> tuple[str, str]:
        """(path, origin) of a verified copy in the cache (a complete part included) or a mirror folder, or ("", "").

        The origin of a copy in the cache is where it was fetched from; "cache" where that was not written down.
        """
        if verified(self.path(artifact), artifact) or self.adopt(artifact):
            return self.path(artifact), origin_of(self.path(artifact)) or "cache"
        path = "" if is_url(self.mirror) else in_mirror(self.mirror, mirrored_at(artifact))
        return (path, self.mirror) if path and verified(path, artifact) else ("", "")

    def adopt(self, artifact: dict[str, Any]) -> bool:
        """Give a complete part its name. A complete one with the wrong sum is removed."""
        path = self.path(artifact)
        part = path + ".part"
        if not os.path.exists(part) or os.path.getsize(part) < artifact["size"]:
            return False
        if not verified(part, artifact):
            os.unlink(part)
            return False
        os.replace(part, path)
        return True

    def fetch(self, artifact: dict[str, Any]) -> tuple[str, str]:
        """(path, origin) of a copy fetched and verified now.

        Raises OutOfTime, or StackError naming what each source answered, or OSError when the cache cannot be written.
        """
        tried: list[str] = []
        for url in self._urls(artifact, tried):
            resumed = self.missing(artifact)["have"] > 0
            if self._download(url, artifact, tried):
                # The part may have begun with another source's bytes: once more, from the start.
                if self.adopt(artifact) or (resumed and self._download(url, artifact, tried) and self.adopt(artifact)):
                    keep_origin(self.path(artifact), without_secrets(url))
                    return self.path(artifact), without_secrets(url)
                kind = sum_of(artifact)
                locked = "locked " if kind == "sha256" else ""
                tried.append(f"{without_secrets(url)}: its bytes do not have the {locked}{kind} {artifact[kind]}")
        reasons = "; ".join(tried) or NOTHING
        remedy = advice(reasons) or artifact.get("remedy") or FILL_MIRROR
        raise StackError(f"{artifact['filename']} could not be fetched. Tried: {reasons}. {remedy}")

    def _urls(self, artifact: dict[str, Any], tried: list[str]) -> Iterator[str]:
        """Addresses to try, the mirror's first. The upstream's are only looked for when they are needed."""
        if is_url(self.mirror):
            yield in_mirror(self.mirror, mirrored_at(artifact))
        elif self.mirror:
            path = in_mirror(self.mirror, mirrored_at(artifact))
            wrong = f"{path} does not have the size and {sum_of(artifact)} that it should"
            tried.append(wrong if os.path.exists(path) else f"the mirror {self.mirror} does not have it")
        if self.upstream and "source" in artifact:
            for source in self.upstream.sources:
                try:
                    yield from self.upstream.urls(artifact, source)
                except NO_ANSWER as error:
                    tried.append(f"{source}: {error}")
            if not tried:
                only = " and ".join(self.upstream.sources) or "no source"
                tried.append(f"nothing, for {only} may be asked, where the lock knows no address of it")

    def _download(self, url: str, artifact: dict[str, Any], tried: list[str]) -> bool:
        """Whether `url` gave as many bytes as it should; else the reason is added to `tried`."""
        with open(self.missing(artifact)["part"], "ab", buffering=0) as part:
            try:
                download(url, part, artifact["size"], self.deadline, at_least=self.seconds)
            except NO_ANSWER as error:
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                tried.append(f"{without_secrets(url)}: {error}")
                return False
        return True


def git(git_dir: str, *arguments: str, timeout: float = 600) -> str:
    """Run git on the repository `git_dir`; "" when it succeeds, else what it says. Raises StackError without git."""
    said, _printed = run_git(f"--git-dir={git_dir}", *arguments, timeout=timeout)
    return said


def run_git(*arguments: str, timeout: float) -> tuple[str, str]:
    """Run git without a terminal: ("" or what it says when it fails, what it prints). Raises StackError without git."""
    environment = {**os.environ, **git_environment()}
    environment.update(GIT_TERMINAL_PROMPT="0", GIT_CONFIG_GLOBAL=os.devnull, LC_ALL="C")
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(variable, None)
    try:
        done = subprocess.run(
            ["git", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise StackError(
            "git is not installed here. Fill a mirror on the controller (playbooks/mirror.yml): sources are then "
            "exported there and pushed."
        ) from None
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s", ""
    if done.returncode:
        # fsck says on its standard output what it misses.
        said = said_by_git(" ".join((done.stderr.strip() or done.stdout).split()))
        return said[-500:] or "git failed", ""
    return "", done.stdout


def export_commit(repositories: list[str], commit: str, tar: str, timeout: float) -> str:
    """`git archive` of `commit`, from the first repository that has it, to the file `tar`. Returns that repository.

    Raises StackError naming what each repository answered.
    """
    tried = []
    with tempfile.TemporaryDirectory(dir=os.path.dirname(tar)) as work:
        draft = os.path.join(work, "tree.tar")
        for repository in repositories:
            git_dir, said = _git_dir(repository), ""
            if not git_dir:
                git_dir = os.path.join(work, "fetched.git")
                said = _fetch_commit(git_dir, repository, commit, timeout)
            said = said or git(git_dir, "archive", "--format=tar", f"--output={draft}", commit)
            if not said:
                os.replace(draft, tar)
                return without_secrets(repository)
            tried.append(f"{without_secrets(repository)}: {said}")  # git itself leaves out the secrets of a URL
    reasons = "; ".join(tried) or NOTHING
    raise StackError(f"Commit {commit} could not be had. Tried: {reasons}. {advice(reasons) or FILL_MIRROR}")


def _git_dir(repository: str) -> str:
    """The git directory of a repository that is a folder here, to be read in place; "" for one to fetch from.

    (Fetching from a folder of another login would fail: git does not trust its owner.)
    """
    if not os.path.isdir(repository):
        return ""
    inner = os.path.join(repository, ".git")
    return inner if os.path.exists(inner) else repository


def _fetch_commit(git_dir: str, repository: str, commit: str, timeout: float) -> str:
    """Fetch `commit` into the new bare repository `git_dir`. Returns what git says when it fails."""
    said = git(git_dir, "init", "--quiet", "--bare", git_dir) or git(
        git_dir, "fetch", "--quiet", "--depth=1", "--", repository, commit, timeout=timeout
    )
    # Old servers do not hand out a commit by its id, and plain file servers no single commit at all: bring everything.
    if "unadvertised object" in said or "dumb http" in said:
        said = git(git_dir, "fetch", "--quiet", "--", repository, "+refs/*:refs/fetched/*", timeout=timeout)
    return said
