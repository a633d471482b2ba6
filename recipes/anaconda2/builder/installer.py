"""Join a shell header and the packages into one self-extracting file."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from .conda_package import add_file, tar_member


def render_header(template: str, version: str, payload: bytes) -> bytes:
    """Fill in what the header says about itself: its version, its own length, and the payload's sum."""
    values = {
        "@VERSION@": version,
        "@LINES@": str(template.count("\n") + 1),
        "@MD5@": hashlib.md5(payload, usedforsecurity=False).hexdigest(),
    }
    for token, value in values.items():
        template = template.replace(token, value)
    return template.encode("utf-8")


def build_payload(bootstrap: bytes, packages: list[Path]) -> bytes:
    """A plain tar of the bootstrap program and the packages (these are compressed already)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tar_member("bootstrap.py", len(bootstrap)), io.BytesIO(bootstrap))
        for package in sorted(packages):
            add_file(archive, package, f"pkgs/{package.name}")
    return buffer.getvalue()


def write_installer(target: Path, version: str, header: Path, bootstrap: Path, packages: list[Path]) -> None:
    """Write the installer; ``target`` appears complete or not at all."""
    payload = build_payload(bootstrap.read_bytes(), packages)
    head = render_header(header.read_text(encoding="utf-8"), version, payload)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(head + payload)
    partial.chmod(0o755)
    partial.replace(target)
