"""Fetching: cache, mirror, upstream; what is cut resumes, what is wrong is refused, and no secret is shown."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.server
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import stack_fetch
from ansible.module_utils.stack_fetch import (
    Fetcher,
    OutOfTime,
    Upstream,
    debian_mirrors,
    file_links,
    open_url,
    pypi_index,
    resolve,
    without_secrets,
)
from ansible.module_utils.stack_installs import StackError

CONTENT = bytes(range(256)) * 4000  # about 1 MB
SECRET = "s3cret"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a path with the function of that name, and keeps what was asked."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answers[self.path](self)

    def log_message(self, *_arguments: object) -> None:
        """Nothing on the test's output."""

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _path, headers in self.asked]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


# Answers


def whole(handler: Handler) -> None:
    """All of it, or what a Range asks for."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if not asked:
        handler.send(CONTENT)
        return
    start = int(asked[1])
    handler.send(CONTENT[start:], 206, Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")


def without_ranges(handler: Handler) -> None:
    handler.send(CONTENT)


def wrong_range(handler: Handler) -> None:
    """Says 206, but begins at the start."""
    handler.send(CONTENT, 206, Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")


def cut(handler: Handler) -> None:
    """Half of what was asked for, then the connection ends."""
    start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
    rest = CONTENT[start:]
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(rest)))
    handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
    handler.end_headers()
    handler.wfile.write(rest[: len(rest) // 2])


def answers(content: bytes, status: int = 200, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.send(content, status, **headers)


def hang(handler: Handler) -> None:
    """The first bytes, then silence."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])
    handler.wfile.flush()
    time.sleep(1)


def trickle(handler: Handler) -> None:
    """A little at a time."""
    start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(CONTENT) - start))
    handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
    handler.end_headers()
    for at in range(start, len(CONTENT), 200_000):
        handler.wfile.write(CONTENT[at : at + 200_000])
        time.sleep(0.02)


# Artifacts


def artifact(**fields: Any) -> dict[str, Any]:
    return {"filename": "file.bin", "sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT), **fields}


def from_url(*urls: str) -> dict[str, Any]:
    return artifact(source="url", urls=list(urls))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetcher(cache: Path, mirror: str = "", upstream: Upstream | None = None, seconds: float = 60) -> Fetcher:
    return Fetcher(str(cache), mirror, upstream or Upstream(), seconds)


def part_of(cache: Path, content: bytes) -> Path:
    """An unfinished copy, as an earlier try left it."""
    path = Path(fetcher(cache).missing(artifact())["part"])
    path.write_bytes(content)
    return path


def in_cache(cache: Path) -> list[str]:
    """Names of its files, but for the notes of where they came from."""
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".origin"]


# --- Where bytes come from --------------------------------------------------------------------------------------------


def test_a_download_is_verified_and_kept_under_its_sum(server: Server, cache: Path) -> None:
    server.answers["/x"] = whole
    path, origin = fetcher(cache).fetch(from_url(f"{server.url}/x"))
    assert Path(path).read_bytes() == CONTENT
    assert path == str(cache / "sha256" / artifact()["sha256"] / "file.bin")
    assert origin == f"{server.url}/x"
    assert in_cache(cache) == ["file.bin"]


def test_where_a_file_came_from_is_known_ever_after(server: Server, cache: Path) -> None:
    server.answers["/x?token=s3cret"] = whole
    path, _origin = fetcher(cache).fetch(from_url(f"{server.url}/x?token={SECRET}"))
    assert fetcher(cache).find(artifact()) == (path, f"{server.url}/x?…")
    Path(f"{path}.origin").unlink()
    assert fetcher(cache).find(artifact()) == (path, "cache")


def test_the_mirror_is_asked_before_the_upstream(server: Server, cache: Path) -> None:
    server.answers[f"/mirror/sha256/{artifact()['sha256']}/file.bin"] = whole
    fetcher(cache, f"{server.url}/mirror/").fetch(from_url(f"{server.url}/upstream"))
    assert len(server.asked) == 1


def test_the_upstream_is_asked_when_the_mirror_does_not_have_it(server: Server, cache: Path) -> None:
    server.answers[f"/mirror/sha256/{artifact()['sha256']}/file.bin"] = answers(b"", 404)
    server.answers["/x"] = whole
    assert fetcher(cache, f"{server.url}/mirror").fetch(from_url(f"{server.url}/x"))[1] == f"{server.url}/x"


def test_a_mirror_folder_is_used_in_place(tmp_path: Path, cache: Path) -> None:
    mirror = tmp_path / "mirror"
    file = mirror / "sha256" / artifact()["sha256"] / "file.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert fetcher(cache, str(mirror)).find(artifact()) == (str(file), str(mirror))
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_a_wrong_file_in_cache_or_mirror_is_not_used(tmp_path: Path, cache: Path, content: bytes) -> None:
    for folder in (cache, tmp_path / "mirror"):
        file = folder / "sha256" / artifact()["sha256"] / "file.bin"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    assert fetcher(cache, str(tmp_path / "mirror")).find(artifact()) == ("", "")


def test_a_file_url_works(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    part_of(cache, CONTENT[:100])
    fetcher(cache).fetch(from_url((tmp_path / "file").as_uri()))
    assert in_cache(cache) == ["file.bin"]


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [whole, without_ranges, wrong_range])
def test_what_was_cut_goes_on(server: Server, cache: Path, again: Callable[[Handler], None]) -> None:
    server.answers["/x"] = cut
    half = len(CONTENT) // 2
    with pytest.raises(StackError, match=f"ended after {half} of {len(CONTENT)} bytes"):
        fetcher(cache).fetch(from_url(f"{server.url}/x"))
    assert fetcher(cache).missing(artifact())["have"] == half
    server.answers["/x"] = again
    path, _origin = fetcher(cache).fetch(from_url(f"{server.url}/x"))
    assert Path(path).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={half}-"]


def test_a_second_address_goes_on_where_the_first_was_cut(server: Server, cache: Path) -> None:
    server.answers["/a"], server.answers["/b"] = cut, whole
    fetcher(cache).fetch(from_url(f"{server.url}/a", f"{server.url}/b"))
    assert server.ranges() == [None, f"bytes={len(CONTENT) // 2}-"]


def test_the_beginning_of_something_else_does_not_spoil_a_good_source(server: Server, cache: Path) -> None:
    """A captive portal's page, kept as the part of a wheel."""
    server.answers["/portal"], server.answers["/x"] = answers(b"<html>Sign in</html>"), whole
    path, _origin = fetcher(cache).fetch(from_url(f"{server.url}/portal", f"{server.url}/x"))
    assert Path(path).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=20-", None]


def test_a_part_that_is_complete_is_used(cache: Path) -> None:
    part_of(cache, CONTENT)
    assert fetcher(cache).find(artifact())[1] == "cache"
    assert in_cache(cache) == ["file.bin"]


@pytest.mark.parametrize("content", [b"x" * len(CONTENT), CONTENT + b"x"])
def test_a_complete_part_that_is_wrong_is_removed(cache: Path, content: bytes) -> None:
    part_of(cache, content)
    assert fetcher(cache).find(artifact()) == ("", "")
    assert in_cache(cache) == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answers(b"", 404), "HTTP Error 404"),
        (answers(b"", 500), "HTTP Error 500"),
        (answers(b"x" * len(CONTENT)), f"its bytes do not have the locked sha256 {artifact()['sha256']}"),
        (answers(CONTENT + b"x"), f"has more than the expected {len(CONTENT)} bytes"),
        (answers(b"x" * 3 * len(CONTENT)), "has more than the expected"),
        (answers(b"<html>Sign in</html>"), f"ended after 20 of {len(CONTENT)} bytes"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n"), "x: "),
        (lambda handler: handler.wfile.close(), "x: "),
        (answers(b"", 302, Location="/x"), "redirect"),
    ],
)
def test_a_source_that_fails_is_named_with_its_reason(
    server: Server, cache: Path, answer: Callable[[Handler], None], why: str
) -> None:
    server.answers["/x"] = answer
    with pytest.raises(StackError, match=rf"^file.bin could not be fetched. Tried: {server.url}/x: ") as caught:
        fetcher(cache).fetch(from_url(f"{server.url}/x"))
    assert why in str(caught.value)
    assert "playbooks/mirror.yml" in str(caught.value)
    assert "file.bin" not in in_cache(cache)


def test_a_silent_source_is_given_up(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_fetch, "TIMEOUT", 0.1)
    server.answers["/x"] = hang
    with pytest.raises(StackError, match="timed out"):
        fetcher(cache).fetch(from_url(f"{server.url}/x"))
    assert fetcher(cache).missing(artifact())["have"] == 1000


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "http://[::1/x", "http://127.0.0.1:port/x", "nonsense", "x://y"]
)
def test_an_address_that_is_none_is_a_reason_too(cache: Path, url: str) -> None:
    with pytest.raises(StackError, match=r"could not be fetched\. Tried: "):
        fetcher(cache).fetch(from_url(url))


def test_all_that_was_tried_is_named(server: Server, cache: Path) -> None:
    server.answers["/a"], server.answers["/b"] = answers(b"", 404), answers(b"", 403)
    with pytest.raises(StackError, match=r"/a: HTTP Error 404.*; .*/b: HTTP Error 403"):
        fetcher(cache).fetch(from_url(f"{server.url}/a", f"{server.url}/b"))


def test_a_redirect_is_followed(server: Server, cache: Path) -> None:
    server.answers["/a"], server.answers["/b"] = answers(b"", 302, Location="/b"), whole
    fetcher(cache).fetch(from_url(f"{server.url}/a"))
    assert in_cache(cache) == ["file.bin"]


def test_no_source_at_all_is_said(cache: Path) -> None:
    with pytest.raises(StackError, match="nothing, for stack_upstream is false and no mirror has it"):
        Fetcher(str(cache), "", None, 60).fetch(from_url("http://127.0.0.1:1/x"))


def test_a_mirror_folder_that_lacks_it_is_named(cache: Path) -> None:
    with pytest.raises(StackError, match="the mirror /no/mirror does not have it"):
        Fetcher(str(cache), "/no/mirror", None, 60).fetch(from_url("http://127.0.0.1:1/x"))


def test_a_full_disk_is_not_the_sources_fault(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/x"] = whole

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stack_fetch, "download", full)
    with pytest.raises(OSError, match="No space left"):
        fetcher(cache).fetch(from_url(f"{server.url}/x"))


def test_a_cache_that_cannot_be_written_is_not_the_sources_fault(server: Server, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(OSError):
        fetcher(cache).fetch(from_url(f"{server.url}/x"))
    assert server.asked == []


# --- Slices of time ---------------------------------------------------------------------------------------------------


def test_each_slice_goes_on_where_the_last_one_stopped(server: Server, cache: Path) -> None:
    server.answers["/x"] = trickle
    have = [0]
    while True:
        try:
            fetcher(cache, seconds=0.01).fetch(from_url(f"{server.url}/x"))
            break
        except OutOfTime:
            have.append(fetcher(cache).missing(artifact())["have"])
    assert len(have) > 2
    assert have == sorted(set(have))
    assert in_cache(cache) == ["file.bin"]


def test_an_answer_that_is_long_in_coming_is_read_for_a_whole_slice(server: Server, cache: Path) -> None:
    """Else each slice of a slow registry brings a few bytes, and the next one asks and waits again."""

    def late(handler: Handler) -> None:
        time.sleep(0.5)
        trickle(handler)

    server.answers["/x"] = late
    fetch = fetcher(cache, seconds=60)
    fetch.deadline = time.monotonic()  # over before the first byte
    fetch.fetch(from_url(f"{server.url}/x"))
    assert in_cache(cache) == ["file.bin"]


def test_pip_is_asked_once_for_its_index(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    asked = []

    def index() -> str:
        asked.append(1)
        time.sleep(0.2)
        return f"{server.url}/simple"

    monkeypatch.setattr(stack_fetch, "pypi_index", index)
    server.answers["/simple/p/"] = answers(b"")
    upstream = Upstream()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upstream.index_page, ["p"] * 4))
    assert asked == [1]


# --- Package index and Debian mirror ----------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html><body>
<a href="../../files/torch-1.0.1.whl#sha256=abc" data-requires-python="&lt;3">torch-1.0.1.whl</a>
<a href='https://elsewhere.example/a%2Bcu90.whl'>a+cu90.whl</a><br/>
<a name="nothing">no link</a> <A HREF="/root/b.whl">b.whl</A>
"""


def test_links_of_an_index_page() -> None:
    assert file_links(PAGE, "https://index.example/simple/torch/") == {
        "torch-1.0.1.whl": "https://index.example/files/torch-1.0.1.whl",
        "a+cu90.whl": "https://elsewhere.example/a%2Bcu90.whl",
        "b.whl": "https://index.example/root/b.whl",
    }


@pytest.mark.parametrize("project", ["My.Project", "my_project", "MY--project"])
def test_a_package_is_found_under_its_normalised_name(server: Server, cache: Path, project: str) -> None:
    server.answers["/simple/my-project/"] = answers(b'<a href="../../files/file.bin#sha256=x">file.bin</a>')
    server.answers["/files/file.bin"] = whole
    upstream = Upstream(f"{server.url}/simple")
    fetcher(cache, upstream=upstream).fetch(artifact(source="pypi", project=project))
    assert in_cache(cache) == ["file.bin"]


def test_links_are_relative_to_where_the_page_is(server: Server, cache: Path) -> None:
    server.answers["/old/p/"] = answers(b"", 302, Location="/new/simple/p/")
    server.answers["/new/simple/p/"] = answers(b'<a href="../../file.bin">file.bin</a>')
    server.answers["/new/file.bin"] = whole
    fetcher(cache, upstream=Upstream(f"{server.url}/old")).fetch(artifact(source="pypi", project="p"))


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (answers(b""), "does not list it"),
        (answers(b"\xff\xfe"), "utf-8"),
        (answers(b"", 404), "HTTP Error 404"),
    ],
)
def test_an_index_without_the_file_is_named(
    server: Server, cache: Path, page: Callable[[Handler], None], why: str
) -> None:
    server.answers["/simple/p/"] = page
    with pytest.raises(StackError, match=f"Tried: registries: .*{why}"):
        fetcher(cache, upstream=Upstream(f"{server.url}/simple")).fetch(artifact(source="pypi", project="p"))


def test_without_pip_the_setting_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_fetch, "pypi_index", lambda: "")
    with pytest.raises(StackError, match=r"no pip .*stack_pypi_index"):
        fetcher(cache).fetch(artifact(source="pypi", project="p"))


def test_the_index_is_that_of_this_machines_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine.example/simple")
    assert pypi_index() == "https://mine.example/simple"
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert pypi_index().startswith("https://")
    monkeypatch.setattr(stack_fetch.sys, "executable", "/no/python")
    assert pypi_index() == ""


SOURCES = """\
# URIs: http://snapshot.example/commented
Types: deb
URIs: http://deb.example/debian/ https://second.example/debian
Suites: bookworm
#URIs: http://off.example/debian

types: deb
uris: http://security.example/debian-security
"""
LIST = """\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://options.example/debian bookworm main
deb http://plain.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb http://plain.example/debian bookworm-updates main
"""


def test_debian_mirrors_are_read_from_both_formats_without_comments() -> None:
    assert debian_mirrors([SOURCES, LIST]) == [
        "http://deb.example/debian",
        "https://second.example/debian",
        "http://security.example/debian-security",
        "http://options.example/debian",
        "http://plain.example/debian",
    ]


def test_a_debian_package_comes_from_the_mirror_that_is_set(server: Server, cache: Path) -> None:
    server.answers["/debian/pool/main/p/file%2Bdeb11u1.deb"] = whole
    entry = artifact(source="debian", path="pool/main/p/file+deb11u1.deb")
    fetcher(cache, upstream=Upstream(debian=f"{server.url}/debian/")).fetch(entry)


def test_without_a_debian_mirror_the_setting_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_fetch, "_apt_sources", lambda: [])
    with pytest.raises(StackError, match=r"no Debian mirror .*stack_debian_mirror"):
        fetcher(cache).fetch(artifact(source="debian", path="pool/x.deb"))


# --- Secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:s3cret@host.example/a", "https://host.example/a"),
        ("https://token@host.example:8443/a", "https://host.example:8443/a"),
        ("https://host.example/a?token=s3cret#x", "https://host.example/a?…"),
        ("https://me:s3cr@t@host.example/a", "https://host.example/a"),
        ("git@host.example:group/repo.git", "git@host.example:group/repo.git"),
        ("/shared/mirror@lab", "/shared/mirror@lab"),
    ],
)
def test_secrets_of_a_url_are_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_a_login_is_sent_to_its_host_and_shown_nowhere(server: Server, cache: Path) -> None:
    server.answers["/x?token=s3cret"] = answers(b"", 403)
    url = f"{server.url}/x?token={SECRET}".replace("//", f"//me:{SECRET}%21@")
    with pytest.raises(StackError) as caught:
        fetcher(cache).fetch(from_url(url))
    assert SECRET not in str(caught.value)
    sent = server.asked[0][1]["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"me:{SECRET}!"


def test_a_login_does_not_follow_a_redirect(server: Server, cache: Path) -> None:
    server.answers["/a"], server.answers["/b"] = answers(b"", 302, Location="/b"), whole
    _path, origin = fetcher(cache).fetch(from_url(f"{server.url}/a".replace("//", f"//me:{SECRET}@")))
    assert ["Authorization" in headers for _path, headers in server.asked] == [True, False]
    assert SECRET not in origin


def test_an_index_with_a_login_is_asked_for_the_files_with_it(server: Server, cache: Path) -> None:
    server.answers["/simple/p/"] = answers(b'<a href="/file.bin">file.bin</a>')
    server.answers["/file.bin"] = whole
    index = f"{server.url}/simple".replace("//", f"//me:{SECRET}@")
    _path, origin = fetcher(cache, upstream=Upstream(index)).fetch(artifact(source="pypi", project="p"))
    assert ["Authorization" in headers for _path, headers in server.asked] == [True, True]
    assert SECRET not in origin


# --- Built artifacts --------------------------------------------------------------------------------------------------

BUILT = {"filename": "installer.sh", "built": "abc123"}


def test_a_built_artifact_is_what_the_mirror_recorded(tmp_path: Path, server: Server, cache: Path) -> None:
    known = {"sha256": artifact()["sha256"], "size": len(CONTENT)}
    folder = tmp_path / "mirror" / "built" / "abc123"
    folder.mkdir(parents=True)
    record = {**known, "recipe": "x"}
    (folder / "artifact.json").write_text(json.dumps(record))
    (folder / "installer.sh").write_bytes(CONTENT)
    manifest = json.dumps({"built": [{**record, "folder": "abc123", "stacks": ["mine"]}]})
    (tmp_path / "mirror/manifest.json").write_text(manifest)
    mirror = str(tmp_path / "mirror")
    assert resolve(BUILT, mirror) == {**BUILT, **known}
    assert fetcher(cache, mirror).find(resolve(BUILT, mirror))[0] == str(folder / "installer.sh")

    server.answers["/built/abc123/artifact.json"] = answers(json.dumps(record).encode())
    server.answers["/manifest.json"] = answers(manifest.encode())
    server.answers["/built/abc123/installer.sh"] = whole
    found = resolve(BUILT, server.url)
    assert found == {**BUILT, **known}
    fetcher(cache, server.url).fetch(found)
    assert in_cache(cache) == ["installer.sh"]


@pytest.mark.parametrize(
    "built",
    [
        [],  # the run that built it did not end
        [{"folder": "abc123", "sha256": "b" * 64, "size": 1, "recipe": "x"}],  # artifact.json was edited
        [{"folder": "def456", "sha256": "a" * 64, "size": 1, "recipe": "x"}],  # and taken from another folder
    ],
)
def test_a_record_that_the_manifest_contradicts_is_refused(tmp_path: Path, built: list[dict[str, Any]]) -> None:
    folder = tmp_path / "built/abc123"
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_text(json.dumps({"sha256": "a" * 64, "size": 1, "recipe": "x"}))
    (tmp_path / "manifest.json").write_text(json.dumps({"built": built}))
    with pytest.raises(StackError, match=r"built/abc123/artifact.json is not what manifest.json .* Nothing of it was"):
        resolve(BUILT, str(tmp_path))


@pytest.mark.parametrize(
    ("sources", "asked"),
    [
        (["upstream", "registries"], ["/theirs", "/debian/pool/x"]),
        (["registries", "upstream"], ["/debian/pool/x", "/theirs"]),
        (["upstream"], ["/theirs"]),
        (["registries"], ["/debian/pool/x"]),
    ],
)
def test_sources_are_tried_in_the_order_that_is_asked_for(
    server: Server, cache: Path, sources: list[str], asked: list[str]
) -> None:
    for path in ("/theirs", "/debian/pool/x"):
        server.answers[path] = answers(b"", 404)
    entry = artifact(source="debian", path="pool/x", urls=[f"{server.url}/theirs"])
    with pytest.raises(StackError, match="HTTP Error 404"):
        fetcher(cache, upstream=Upstream("", f"{server.url}/debian", sources)).fetch(entry)
    assert [path for path, _headers in server.asked] == asked


def test_the_next_source_is_tried_where_one_has_other_bytes(server: Server, cache: Path) -> None:
    server.answers["/theirs"], server.answers["/debian/pool/x"] = answers(b"x" * len(CONTENT)), whole
    entry = artifact(source="debian", path="pool/x", urls=[f"{server.url}/theirs"])
    _path, origin = fetcher(cache, upstream=Upstream("", f"{server.url}/debian")).fetch(entry)
    assert origin == f"{server.url}/debian/pool/x"


@pytest.mark.parametrize(("source", "only"), [("url", "registries"), ("debian", "upstream")])
def test_a_source_that_is_left_out_is_the_reason(cache: Path, source: str, only: str) -> None:
    entry = artifact(source=source, **({"urls": ["http://127.0.0.1:1/"]} if source == "url" else {"path": "pool/x"}))
    with pytest.raises(StackError, match=f"Tried: nothing, for {only} may be asked, where the lock knows no address"):
        fetcher(cache, upstream=Upstream(sources=[only])).fetch(entry)


def test_an_artifact_with_its_sum_is_asked_nowhere() -> None:
    for entry in (artifact(), {**artifact(), "built": "abc"}):
        assert resolve(entry, "http://127.0.0.1:1") is entry


@pytest.mark.parametrize("record", [b"[]", b"{}", b"{", b'{"sha256": 1}', b"\xff"])
def test_a_broken_record_is_one_sentence(server: Server, record: bytes) -> None:
    server.answers["/built/abc123/artifact.json"] = answers(record)
    with pytest.raises(StackError, match=r"installer.sh is built, not downloaded.* Build it: .*mirror.yml"):
        resolve(BUILT, server.url)


@pytest.mark.parametrize(("mirror", "why"), [("", "no mirror is set"), ("/no/mirror", "/no/mirror/built/abc123/")])
def test_a_mirror_without_it_is_named(mirror: str, why: str) -> None:
    with pytest.raises(StackError, match=why):
        resolve(BUILT, mirror)


def test_a_server_that_cannot_be_reached_is_an_os_error() -> None:
    with pytest.raises(OSError):
        open_url("http://127.0.0.1:1/")
