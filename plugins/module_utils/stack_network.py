"""Proxies and CA bundles of all that is downloaded, and what people are told of them: never a login.

Both reach urllib and git as environment variables. A process's environment is read by its own account alone, its
arguments by everybody on the server.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from ansible.module_utils.stack_installs import StackError

# The names under which programs know a file of certificates; the first that is set counts, for all of them.
CA_BUNDLES = ("SSL_CERT_FILE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")

NO_PROXY_ADDRESS = (
    "is no address of a proxy such as http://proxy.example.org:3128 or http://user:password@proxy.example.org:3128. "
    "What it is instead is not shown, for it may hold a password. Only http:// proxies serve here, not https:// or "
    "socks; in user and password, special characters are written as %40 for @, %2F for /"
)

UNTRUSTED = "its certificate is not trusted"
# What a reason looks like, ours or git's: what to do.
ADVICE = (
    (
        re.compile(r"\(407\)|(?:code|response) 407|Proxy Authentication"),
        "Check user name and password in stack_proxy, or where that is empty in https_proxy of the login.",
    ),
    (
        re.compile(rf"{UNTRUSTED}|certificate verification failed|SSL certificate problem"),
        "Where a company has a certificate authority of its own, stack_ca_bundle names its file on the server "
        "(for the controller: SSL_CERT_FILE).",
    ),
    (
        re.compile(r"the proxy \S+ does not answer|Could not resolve proxy"),
        "Check host and port in stack_proxy, or where that is empty in https_proxy of the login.",
    ),
)
# X509_V_ERR_…: what another CA bundle mends, unlike a certificate that is too old or of another host.
UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


def use_network(proxy: str, no_proxy: str, ca_bundle: str) -> None:
    """Make these the proxy and CA bundle of this process and its children; "" leaves what its environment says.

    Raises StackError where one of them cannot be used.
    """
    if proxy:
        try:
            address = _canonical(proxy)
        except ValueError:
            raise StackError(f"stack_proxy {NO_PROXY_ADDRESS}.") from None
        os.environ.update(http_proxy=address, https_proxy=address)
    if no_proxy:
        os.environ["no_proxy"] = no_proxy
    if ca_bundle:
        try:
            ssl.create_default_context(cafile=ca_bundle)
        except OSError as error:  # ssl.SSLError is one
            raise StackError(
                f"stack_ca_bundle {ca_bundle} is no file of certificates on this server: {error}. It has to be a "
                "file of one or more PEM certificates that this login can read."
            ) from None
        os.environ.update(dict.fromkeys(("SSL_CERT_FILE", "GIT_SSL_CAINFO"), ca_bundle))


def _canonical(address: str) -> str:
    """A proxy's address as urllib and curl read it alike: its login quoted, its port said. Raises ValueError."""
    parts = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    login, at, _host = parts.netloc.rpartition("@")
    host, port = parts.hostname, parts.port or 80  # where none is said curl takes 1080
    if parts.scheme != "http" or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(NO_PROXY_ADDRESS)
    user, colon, password = login.partition(":")
    user, password = (urllib.parse.quote(urllib.parse.unquote(part), safe="") for part in (user, password))
    return f"http://{user}{colon}{password}{at}{f'[{host}]' if ':' in host else host}:{port}"


def proxy_of(url: str) -> str:
    """Host and port of the proxy by which this process opens `url`; "" for none. Raises ValueError."""
    parts = urllib.parse.urlsplit(url)
    address = urllib.request.getproxies().get(parts.scheme)
    if not address or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return ""
    try:
        return _canonical(address).rpartition("/")[2].rpartition("@")[2]
    except ValueError:
        raise ValueError(f"{parts.scheme}_proxy of the environment {NO_PROXY_ADDRESS}") from None


def ca_bundle() -> str:
    """The file of certificates that the environment names; "" for the system's."""
    named = (os.environ.get(name, "") for name in CA_BUNDLES)
    return next((path for path in named if os.path.isfile(path)), "")


class _WithoutLogin(urllib.request.HTTPRedirectHandler):
    """A redirect may lead to a host that is asked without the proxy: that one must not get the proxy's login."""

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        request = super().redirect_request(*arguments)
        if request:
            request.remove_header("Proxy-authorization")
        return request


def send(request: urllib.request.Request, timeout: float) -> Any:
    """The answer to `request`. Raises OSError, http.client.HTTPException or ValueError, without a login in its text."""
    proxy = proxy_of(request.full_url)
    trusted = ssl.create_default_context(cafile=ca_bundle() or None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusted), _WithoutLogin)
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.URLError as error:
        reason = error if isinstance(error, urllib.error.HTTPError) else error.reason
        said = without_logins(str(reason))
        if isinstance(reason, ssl.SSLCertVerificationError) and reason.verify_code in UNKNOWN_AUTHORITY:
            raise OSError(f"{UNTRUSTED}: {reason.verify_message}") from None
        if getattr(error, "code", 0) == 407 or "failed: 407" in said:
            raise OSError(f"the proxy {proxy} refuses the login (407)") from None
        if proxy and "Tunnel connection failed" in said:
            raise OSError(f"the proxy {proxy} does not let it through: {said}") from None
        if proxy and isinstance(reason, OSError) and not isinstance(reason, (ssl.SSLError, urllib.error.HTTPError)):
            raise OSError(f"the proxy {proxy} does not answer: {said}") from None
        raise


def git_environment() -> dict[str, str]:
    """What git needs so that it trusts the same certificates as our own downloads, unless it was told its own."""
    return {"GIT_SSL_CAINFO": os.environ.get("GIT_SSL_CAINFO") or ca_bundle()} if ca_bundle() else {}


def said_by_git(text: str) -> str:
    """What git says of a failure, without logins; that it was the proxy which did not answer, git does not say."""
    if "proxy syntax in" in text:  # and half of the address
        return f"https_proxy of the environment {NO_PROXY_ADDRESS}"
    proxies = {address.rpartition("@")[2].rpartition("/")[2] for address in _proxies()}
    for proxy in sorted(proxies):
        host, _colon, port = proxy.rpartition(":")
        if f"connect to {host} port {port}" in text:
            return f"the proxy {proxy} does not answer: {without_logins(text)}"
    return without_logins(text)


def advice(reasons: str) -> str:
    """What to do where a proxy or a certificate is among the reasons; else ""."""
    return " ".join(sentence for pattern, sentence in ADVICE if pattern.search(reasons))


def without_logins(text: str) -> str:
    """`text` without the logins of addresses in it, and without those of this process's proxies, wherever they are."""
    shown = re.sub(r"(://)[^/\s'\"]*@", r"\1", text)
    for secret in sorted(_secrets(), key=len, reverse=True):
        shown = shown.replace(secret, "…")
    return shown


def _proxies() -> list[str]:
    return [address for address in urllib.request.getproxies_environment().values() if address]


def _secrets() -> set[str]:
    """The logins and passwords of this process's proxies, in all the ways in which an error might repeat them."""
    found = set()
    for address in _proxies():
        login = (address.partition("://")[2] or address).rpartition("@")[0]
        plain = urllib.parse.unquote(login)
        found |= {login, plain, base64.b64encode(plain.encode()).decode()}
        found |= {login.partition(":")[2], plain.partition(":")[2]}
    return found - {""}
