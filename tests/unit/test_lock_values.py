"""What a lock lacks is found at its publisher, checked against all that is stated there, and kept in the mirror."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible.module_utils.lock_values import Files, Repositories, best_file, resolve_ref
from ansible.module_utils.stack_fetch import Upstream
from ansible.module_utils.stack_installs import StackError, digest

CONTENT = b"the bytes of a wheel" * 1000
SUM = hashlib.sha256(CONTENT).hexdigest()
WHEEL = "six-1.11.0-py2.py3-none-any.whl"
PYPI = {"source": "pypi", "project": "Six", "version": "1.11.0"}
FOUND = {"filename": WHEEL, "sha256": SUM, "size": len(CONTENT)}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what was asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_arguments: object) -> None:
        """Nothing on the test's output."""


class Site:
    """A publisher: a folder that is served, and what was asked of it."""

    def __init__(self, folder: Path, url: str, asked: list[str]) -> None:
        self.folder, self.url, self.asked = folder, url, asked

    def put(self, path: str, content: bytes) -> str:
        """Publish a file; returns its address."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)
        return f"{self.url}/{path}"

    def list_files(self, *names: str, sha256: str = "") -> None:
        """The index page of project six."""
        mark = f"#sha256={sha256}" if sha256 else ""
        self.put("simple/six/index.html", "".join(f'<a href="/files/{name}{mark}">x</a>' for name in names).encode())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(Handler, "asked", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Site(folder, f"http://127.0.0.1:{server.server_port}", Handler.asked)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def shown() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture
def files(site: Site, tmp_path: Path, shown: list[tuple[str, int, int]]) -> Files:
    upstream = Upstream(f"{site.url}/simple", f"{site.url}/debian")
    return Files(tmp_path / "mirror", upstream, lambda *seen: shown.append(seen))


def kept(files: Files) -> list[str]:
    """All that is in the mirror, but for the notes of where it came from."""
    paths = [path for path in files.mirror.rglob("*") if path.is_file() and path.suffix != ".origin"]
    return sorted(str(path.relative_to(files.mirror)) for path in paths)


# --- Package index ----------------------------------------------------------------------------------------------------


def test_a_package_is_found_by_its_version_and_its_sum_compared_with_the_index(
    site: Site, files: Files, shown: list[tuple[str, int, int]]
) -> None:
    site.put(f"files/{WHEEL}", CONTENT)
    site.list_files(WHEEL, "six-1.12.0-py2.py3-none-any.whl", sha256=SUM)
    assert files.find(PYPI) == (FOUND, "the package index states the same sha256")
    assert kept(files) == [f"sha256/{SUM}/{WHEEL}"]
    assert shown[-1] == (WHEEL, len(CONTENT), len(CONTENT))


def test_what_the_mirror_has_is_not_fetched_twice(site: Site, files: Files) -> None:
    site.put(f"files/{WHEEL}", CONTENT)
    site.list_files(WHEEL, sha256=SUM)
    first = files.find(PYPI)
    site.asked.clear()
    assert files.find(PYPI) == first
    assert site.asked == ["/simple/six/"]


def test_a_part_that_a_killed_run_left_is_taken_over_only_with_the_right_sum(site: Site, files: Files) -> None:
    url = site.put(f"files/{WHEEL}", CONTENT)
    site.list_files(WHEEL, sha256=SUM)
    part = files.mirror / "tmp" / f"{digest(url)}-{WHEEL}"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * len(CONTENT))
    with pytest.raises(StackError, match="its bytes have sha256"):
        files.find(PYPI)
    part.write_bytes(CONTENT)
    assert files.find(PYPI)[0] == FOUND
    assert kept(files) == [f"sha256/{SUM}/{WHEEL}"]


def test_bytes_that_are_not_those_of_the_index_are_refused(site: Site, files: Files) -> None:
    site.put(f"files/{WHEEL}", b"other bytes")
    site.list_files(WHEEL, sha256=SUM)
    with pytest.raises(StackError, match=f"its bytes have sha256 .*, not {SUM}"):
        files.find(PYPI)
    assert kept(files) == []


def test_an_index_without_sums_leaves_one_download(site: Site, files: Files) -> None:
    site.put(f"files/{WHEEL}", CONTENT)
    site.list_files(WHEEL)
    assert files.find(PYPI) == (
        FOUND,
        "computed from one download over http, which anybody on the way can alter; nobody else's word for it",
    )


def test_a_size_alone_is_found_with_the_sum_that_the_lock_had(site: Site, files: Files) -> None:
    url = site.put("f.tgz", CONTENT)
    entry = {"source": "url", "urls": [f"{site.url}/gone.tgz", url], "filename": "f.tgz", "sha256": SUM}
    assert files.find(entry) == ({**FOUND, "filename": "f.tgz"}, "the sha256 is the one that the lock had")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({**PYPI, "sha256": "0" * 64}, "the lock has sha256 000.*the package index states"),
        ({**PYPI, "size": 5}, "it has 20000 bytes, the lock says 5"),
        ({**PYPI, "filename": "six-9.whl"}, "/simple/six/ does not list it"),
        ({**PYPI, "version": "9"}, "no file of version 9 for Python 2.7"),
        ({"source": "pypi", "project": "six"}, "a file of source pypi needs version as well"),
        ({"source": "url", "filename": "f"}, "a file of source url needs urls as well"),
        ({"source": "ftp", "filename": "f"}, "use pypi, debian or url"),
        ({"source": "url", "urls": ["http://127.0.0.1/a%2F..%2Fb"]}, "no name of a file"),
        ({"source": "url", "urls": ["http://127.0.0.1/"]}, "no name of a file"),
    ],
)
def test_what_does_not_fit_is_said(site: Site, files: Files, entry: dict[str, Any], says: str) -> None:
    site.put(f"files/{WHEEL}", CONTENT)
    site.list_files(WHEEL, sha256=SUM)
    with pytest.raises(StackError, match=says):
        files.find(entry)


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (["p-1-cp27-cp27m-manylinux1_x86_64.whl", "p-1-cp27-cp27mu-manylinux1_x86_64.whl"], 1),
        (["p-1-py2.py3-none-any.whl", "p-1-cp27-cp27mu-manylinux1_x86_64.whl"], 1),
        (["p-1-cp36-cp36m-manylinux1_x86_64.whl", "p-1.tar.gz"], 1),
        (["p-1-cp27-cp27mu-manylinux1_i686.whl", "p-1.zip", "p-1.exe", "p-1-py2.7.egg"], 1),
        (["p-2-py2-none-any.whl", "p-1.0-py2-none-any.whl"], 1),
        (["p-1.tar.gz", "p-1-py2-none-any.whl"], 1),
    ],
)
def test_the_file_that_python_27_takes_is_chosen(names: list[str], best: int) -> None:
    assert best_file(names, "1") == names[best]


# --- Other sources ----------------------------------------------------------------------------------------------------


def test_a_debian_file_is_found_by_its_path(site: Site, files: Files) -> None:
    site.put("debian/pool/main/z/zlib1g_1.2.deb", CONTENT)
    found, word = files.find({"source": "debian", "path": "pool/main/z/zlib1g_1.2.deb"})
    assert found == {**FOUND, "filename": "zlib1g_1.2.deb"}
    assert "nobody else's word for it" in word


@pytest.mark.parametrize(("suffix", "algorithm"), [(".md5sum", "md5"), (".sha256", "sha256"), (".md5", "md5")])
def test_a_sum_beside_a_file_is_compared(site: Site, files: Files, suffix: str, algorithm: str) -> None:
    url = site.put("nccl.txz", CONTENT)
    site.put(f"nccl.txz{suffix}", f"{hashlib.new(algorithm, CONTENT).hexdigest()}  nccl.txz\n".encode())
    found, word = files.find({"source": "url", "urls": [url]})
    assert found == {**FOUND, "filename": "nccl.txz"}
    assert word == f"computed from one download; the publisher's nccl.txz{suffix} agrees"
    site.put(f"nccl.txz{suffix}", b"0" * hashlib.new(algorithm).digest_size * 2)
    with pytest.raises(StackError, match=f"its {algorithm} is .*, but .*{suffix} says 0000"):
        files.find({"source": "url", "urls": [url]})


def test_a_sum_of_nobody_is_computed_afresh(site: Site, files: Files) -> None:
    url = site.put("f.tgz", CONTENT)
    files.find({"source": "url", "urls": [url]})
    site.put("f.tgz", b"another file of that name")
    assert files.find({"source": "url", "urls": [url]})[0]["size"] == 25


def test_addresses_that_do_not_answer_are_all_named(site: Site, files: Files) -> None:
    with pytest.raises(StackError, match=r"a\.tgz: .*404.*; .*b\.tgz: .*404"):
        files.find({"source": "url", "urls": [f"{site.url}/a.tgz", f"{site.url}/b.tgz"]})


# --- Git --------------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Branch main (with a submodule), an annotated tag v1 before it, a tag and a branch of one name."""
    folder = tmp_path / "caffe2"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=first")
    git(folder, "tag", "--annotate", "--message=one", "v1")
    git(folder, "branch", "both")
    git(folder, "tag", "both")
    (folder / ".gitmodules").write_text(
        '[submodule "eigen"]\n\tpath = third_party/eigen\n\turl = ../eigen.git\n'
        '[submodule "old.one"]\n\tpath = gone\n\turl = https://example.org/gone.git\n'
    )
    git(folder, "add", ".gitmodules")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'e1' * 20},third_party/eigen")
    git(folder, "commit", "--quiet", "--message=second")
    return folder


def test_a_branch_a_tag_and_the_default_branch_become_commits(repository: Path) -> None:
    first, second = git(repository, "rev-parse", "main~1", "main").split()
    assert resolve_ref(str(repository), "main") == (second, "branch main")
    assert resolve_ref(str(repository), "v1") == (first, "tag v1")
    assert resolve_ref(str(repository), "") == (second, "the default branch")


@pytest.mark.parametrize(
    ("name", "says"),
    [("both", "both a branch .* and a tag"), ("nothing", "no branch or tag 'nothing'"), ("e1e1e1e", "needs 40 digits")],
)
def test_a_name_that_means_no_one_commit_is_refused(repository: Path, name: str, says: str) -> None:
    with pytest.raises(StackError, match=says):
        resolve_ref(str(repository), name)


def test_a_repository_that_does_not_answer_says_why(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="does not appear to be a git repository"):
        resolve_ref(str(tmp_path), "main")


def test_submodules_are_listed_with_their_commits(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "main")
    found, word = Repositories(tmp_path / "mirror").find(
        {"repository": str(repository), "commit": None, "submodules": None}, ("commit", "submodules"), "caffe2"
    )
    eigen = {"path": "third_party/eigen", "repository": str(tmp_path / "eigen.git"), "commit": "e1" * 20}
    assert found == {"commit": commit, "submodules": [eigen]}
    assert word == (
        f"the default branch of {repository} as git ls-remote tells it now; "
        f"the submodules that commit {commit[:12]} records"
    )
    assert git(tmp_path / "mirror/git/caffe2.git", "rev-parse", f"refs/heads/{commit}") == commit


def test_a_tree_without_submodules_has_an_empty_list(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "v1^{commit}")
    entry = {"repository": str(repository), "commit": commit, "submodules": None}
    assert Repositories(tmp_path / "mirror").find(entry, ("submodules",), "caffe2")[0] == {"submodules": []}
