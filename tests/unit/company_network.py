"""A company's network on loopback: a proxy that demands a login, and an HTTPS server whose authority nobody knows."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.client
import http.server
import ipaddress
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER = "alice@company"
PASSWORD = "Pa55/w0rd:&x"  # each of these characters ends a part of an address where it is not quoted
QUOTED = urllib.parse.quote(PASSWORD, safe="")
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, QUOTED, BASIC)


def certificates(folder: Path) -> tuple[Path, Path]:
    """(bundle with a new authority's certificate, certificate and key of 127.0.0.1 that it signed)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a company")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def signed(subject: x509.Name, public: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if authority:
            usage = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                False,
            )
            unused = {"encipher_only": False, "decipher_only": False}
            certifies = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage, **unused)
            return builder.add_extension(certifies, critical=True).sign(key, hashes.SHA256())
        return builder.add_extension(address, critical=False).sign(key, hashes.SHA256())

    bundle, server = folder / "company.pem", folder / "server.pem"
    pem = serialization.Encoding.PEM
    bundle.write_bytes(signed(name, key.public_key(), True).public_bytes(pem))
    own = ec.generate_private_key(ec.SECP256R1())
    host = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    private = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server.write_bytes(signed(host, own.public_key(), False).public_bytes(pem) + private)
    return bundle, server


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Nothing on the test's output."""


class Proxy(http.server.ThreadingHTTPServer):
    """Passes on what comes with the login; keeps what it was asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.passed: list[str] = []
        self.refused: list[str] = []
        self.place = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{urllib.parse.quote(USER)}:{QUOTED}@{self.place}"


class _Passing(http.server.BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"  # curl asks without a login first, and again on the same connection

    def log_message(self, *_arguments: object) -> None:
        """Nothing on the test's output."""

    def allowed(self) -> bool:
        if self.headers.get("Proxy-Authorization") == f"Basic {BASIC}":
            self.server.passed.append(self.path)
            return True
        self.server.refused.append(self.path)
        self.send_response(407)
        self.send_header("Proxy-Authenticate", 'Basic realm="company"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_CONNECT(self) -> None:
        if not self.allowed():
            return
        host, _colon, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()
        self.close_connection = True

    def do_GET(self) -> None:
        if not self.allowed():
            return
        parts = urllib.parse.urlsplit(self.path)
        connection = http.client.HTTPConnection(parts.netloc)
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name in ("Location", "Content-Type"):
            if value := answer.headers.get(name):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on bytes until there are no more."""
    with contextlib.suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def serving(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class Company:
    """The proxy, and `url` under which `folder` is served over TLS; `bundle` has the authority's certificate."""

    def __init__(self, folder: Path, proxy: Proxy, url: str, bundle: Path) -> None:
        self.folder, self.proxy, self.url, self.bundle = folder, proxy, url, bundle


@contextlib.contextmanager
def company(place: Path) -> Iterator[Company]:
    """A company's network for as long as the context lasts; its files are in `place`."""
    folder = place / "served"
    folder.mkdir(parents=True)
    bundle, certificate = certificates(place)
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
    files.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    files.socket = context.wrap_socket(files.socket, server_side=True)
    files.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that does not trust it
    with Proxy() as proxy, serving(files), serving(proxy):
        yield Company(folder, proxy, f"https://127.0.0.1:{files.server_port}", bundle)
