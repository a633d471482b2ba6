"""Downloads and git through a company's proxy and with its certificates; its password is shown nowhere."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import stack_network
from ansible.module_utils.stack_fetch import open_url, run_git
from ansible.module_utils.stack_installs import StackError
from ansible.module_utils.stack_network import CA_BUNDLES, proxy_of, use_network, without_logins
from company_network import BASIC, PASSWORD, QUOTED, SECRETS, USER, Company, certificates, company, serving
from run_module import run_module
from test_stack_git import bare, exported
from test_stack_git import run_git as own_git

CONTENT = b"content\n" * 1000
NOBODY = "127.0.0.1:1"  # where nobody answers
ASKED = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy or bundle of this machine's own; what a test's own process sets is taken back."""
    for name in (*ASKED, *(name.upper() for name in ASKED), *CA_BUNDLES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """A company's network that serves a file and a git repository."""
    place = tmp_path_factory.mktemp("company")
    with company(place) as made:
        (made.folder / "file").write_bytes(CONTENT)
        tree = place / "tree"
        tree.mkdir()
        (tree / "file").write_bytes(CONTENT)
        for arguments in (("init", "-q"), ("add", "file"), ("commit", "-qm", "one")):
            own_git(tree, *arguments)
        bare(tree, made.folder / "r.git")
        own_git(made.folder / "r.git", "update-server-info")
        yield made


def commit_of(network: Company) -> str:
    return own_git(network.folder / "r.git", "rev-parse", "HEAD")


def fetch(network: Company, cache: Path, name: str = "file", **arguments: Any) -> dict[str, Any]:
    """What the module says of a download (`file`) or a tree fetched by git (`tree`)."""
    known = {"filename": "file", "sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
    file = {**known, "source": "url", "urls": [f"{network.url}/file"]}
    tree = {"filename": "t.tar", "repository": f"{network.url}/r.git", "commit": commit_of(network), "mirrored": "t"}
    wanted = file if name == "file" else tree
    return run_module("fetch_artifacts", artifacts=[wanted], cache=str(cache), **arguments)


each = pytest.mark.parametrize("name", ["file", "tree"])


@each
def test_a_server_fetches_through_the_proxy_with_the_bundle(network: Company, tmp_path: Path, name: str) -> None:
    network.proxy.passed.clear()
    result = fetch(network, tmp_path, name, proxy=network.proxy.url, ca_bundle=str(network.bundle))
    [path] = result["files"].values()
    assert (exported(Path(path)) == {"file": CONTENT}) if name == "tree" else (Path(path).read_bytes() == CONTENT)
    assert set(network.proxy.passed) == {network.url.partition("//")[2]}
    assert not [secret for secret in SECRETS if secret in str(result)]


@pytest.mark.parametrize(
    ("name", "bundle"),
    [("tree", "SSL_CERT_FILE"), ("tree", "GIT_SSL_CAINFO"), *(("file", name) for name in CA_BUNDLES)],
)
def test_where_nothing_is_set_the_environment_counts(
    network: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bundle: str
) -> None:
    """Of the server's login, and when a mirror is filled that of the person's own shell."""
    monkeypatch.setenv("https_proxy", network.proxy.url)
    monkeypatch.setenv(bundle, str(network.bundle))
    network.proxy.passed.clear()
    assert fetch(network, tmp_path, name)["files"]
    assert network.proxy.passed


@each
def test_hosts_without_the_proxy_are_reached_directly(network: Company, tmp_path: Path, name: str) -> None:
    settings = {"proxy": f"http://{NOBODY}", "no_proxy": "example.org,127.0.0.1", "ca_bundle": str(network.bundle)}
    assert fetch(network, tmp_path, name, **settings)["files"]


@each
@pytest.mark.parametrize(
    ("proxy", "trusts", "cause", "remedy"),
    [
        ("http://alice:S3cretWrong@{place}", True, r"407", "Check user name and password in stack_proxy"),
        ("http://{place}", True, r"407", "Check user name and password in stack_proxy"),
        ("{url}", False, r"certificate.* (is not trusted|problem|verification failed)", "stack_ca_bundle names its"),
        (f"http://alice:S3cretWrong@{NOBODY}", True, f"the proxy {NOBODY} does not answer", "Check host and port in"),
        ("http://alice:S3cretWrong@no.invalid", True, r"not answer|resolve proxy", "Check host and port in"),
    ],
)
def test_what_fails_is_said_once_with_its_remedy_and_without_the_login(
    network: Company, tmp_path: Path, name: str, proxy: str, trusts: bool, cause: str, remedy: str
) -> None:
    given = proxy.format(place=network.proxy.place, url=network.proxy.url)
    bundle = {"ca_bundle": str(network.bundle)} if trusts else {}
    result = fetch(network, tmp_path, name, proxy=given, **bundle)
    assert re.search(cause, result["msg"]), result["msg"]
    assert result["msg"].count(remedy) == 1
    assert "playbooks/mirror.yml" not in result["msg"]
    assert not [secret for secret in (*SECRETS, "S3cretWrong", "alice") if secret in str(result)]


def test_one_cause_of_many_failures_has_its_remedy_once(network: Company, tmp_path: Path) -> None:
    files = [
        {"filename": name, "sha256": "a" * 64, "size": 1, "source": "url", "urls": [f"{network.url}/{name}"]}
        for name in "abc"
    ]
    message = run_module("fetch_artifacts", artifacts=files, cache=str(tmp_path), proxy=f"http://{NOBODY}")["msg"]
    assert message.startswith("3 files could not be had. a could not be fetched. Tried: ")
    assert message.count("Check host and port in stack_proxy") == 1


@pytest.mark.parametrize(
    "proxy",
    [
        "https://alice:S3cret@proxy.example:3128",
        "socks5://alice:S3cret@proxy.example:1080",
        "http://alice:S3/cret@proxy.example:3128",
        "http://alice:12/S3cret@proxy.example:3128",
        "http://alice:S3#cret@proxy.example:3128",
        "http://alice:S3?cret@proxy.example:3128",
        "http://alice:S3cret@",
        "http://alice:S3cret@[::1",
    ],
)
def test_an_address_that_is_no_proxys_is_refused_unseen(network: Company, tmp_path: Path, proxy: str) -> None:
    message = fetch(network, tmp_path, proxy=proxy)["msg"]
    assert message.startswith("stack_proxy is no address of a proxy such as http://proxy.example.org:3128")
    assert not re.search("S3|cret|alice", message)


@pytest.mark.parametrize("proxy", ["socks5://alice:S3cret@proxy.example:1080", "http://alice:S3/cret@proxy.example:1"])
def test_such_an_address_in_the_environment_is_named_and_not_shown(
    network: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    message = fetch(network, tmp_path)["msg"]
    assert "https_proxy of the environment is no address" in message
    assert not re.search("S3|cret|alice", message + fetch(network, tmp_path, "tree")["msg"])


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example", "http://proxy.example:80"),  # curl would take 1080
        ("http://al@ice:a:b@proxy.example:1", "http://al%40ice:a%3Ab@proxy.example:1"),
        ("http://alice:100%@proxy.example:1/", "http://alice:100%25@proxy.example:1"),
        ("http://alice:%40%2f@proxy.example:1", "http://alice:%40%2F@proxy.example:1"),
        ("http://token@[::1]:8080", "http://token@[::1]:8080"),
    ],
)
def test_urllib_and_curl_are_given_an_address_that_they_read_alike(
    monkeypatch: pytest.MonkeyPatch, given: str, used: str
) -> None:
    use_network(given, "", "")
    assert (os.environ["http_proxy"], os.environ["https_proxy"]) == (used, used)
    assert proxy_of("https://pypi.example/x") == used.rpartition("/")[2].rpartition("@")[2]


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_is_none_is_named(network: Company, tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "company.pem"
    if content is not None:
        bundle.write_bytes(content)
    message = fetch(network, tmp_path / "cache", ca_bundle=str(bundle))["msg"]
    assert message.startswith(f"stack_ca_bundle {bundle} is no file of certificates on this server: ")


def test_another_certificates_fault_is_not_the_bundles(
    network: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(network.bundle))
    with pytest.raises(OSError, match="Hostname mismatch") as caught:
        open_url(network.url.replace("127.0.0.1", "localhost"))
    assert stack_network.advice(str(caught.value)) == ""
    other, _server = certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(OSError, match="its certificate is not trusted: "):
        open_url(network.url)


def test_what_is_set_replaces_what_the_environment_says(network: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{NOBODY}")
    for name in CA_BUNDLES:
        monkeypatch.setenv(name, "/etc/hostname")
    use_network(network.proxy.url, "", str(network.bundle))
    assert open_url(f"{network.url}/file").read() == CONTENT
    said, printed = run_git("ls-remote", f"{network.url}/r.git", timeout=60)
    assert (said, commit_of(network) in printed) == ("", True)


def test_a_redirect_past_the_proxy_does_not_get_its_login(network: Company) -> None:
    asked: list[dict[str, str]] = []

    class Direct(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Nothing on the test's output."""

    class Elsewhere(Direct):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{direct.server_port}/")
            self.end_headers()

    direct = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Direct)
    first = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    with serving(direct), serving(first):
        use_network(network.proxy.url, "localhost", "")
        open_url(f"http://127.0.0.1:{first.server_port}/")
    assert f"http://127.0.0.1:{first.server_port}/" in network.proxy.passed
    assert len(asked) == 1
    assert not [name for name in asked[0] if name.lower() == "proxy-authorization"]


@pytest.mark.parametrize(
    "text",
    [
        "fatal: unable to access 'https://h/': Unsupported proxy syntax in 'http://{user}:{quoted}@p:1'",
        "proxy URL with no authority: 'http:{user}:{password}@p:1'",
        "nonnumeric port: '{password}'",
        "Proxy-Authorization: Basic {basic}",
        "https://alice:Pa55@host/x said no",
    ],
)
def test_no_login_is_left_in_what_programs_say(network: Company, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("https_proxy", network.proxy.url)
    shown = without_logins(text.format(user=USER, password=PASSWORD, quoted=QUOTED, basic=BASIC))
    assert not re.search(f"Pa55|{re.escape(BASIC)}", shown)


def test_what_a_proxy_refuses_is_its_word(network: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_error(403, "Not on the list")

        def log_message(self, *_arguments: object) -> None:
            """Nothing on the test's output."""

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    with serving(proxy):
        use_network(f"http://127.0.0.1:{proxy.server_port}", "", "")
        with pytest.raises(OSError, match=r"the proxy 127\.0\.0\.1:\d+ does not let it through: .*403 Not on the list"):
            open_url(network.url)


def test_nothing_is_set_where_nothing_is_given() -> None:
    before = dict(os.environ)
    use_network("", "", "")
    assert dict(os.environ) == before
    with pytest.raises(StackError):
        use_network("https://x", "", "")
    assert dict(os.environ) == before
