"""Writes ELF files with code for GPUs, header by header, as CUDA's libraries have it."""

from __future__ import annotations

import struct
from pathlib import Path

PTX, MACHINE_CODE = 1, 2
Entry = tuple[int, int]  # kind, compute capability * 10


def fat_binary(*entries: Entry, header: int = 64) -> bytes:
    """A fat binary: one header, then an entry for each GPU, its own header of `header` bytes before its content."""
    body = b""
    for kind, architecture in entries:
        # Content that holds the magic number: only what stands where a header is expected counts.
        content = struct.pack("<I", 0xBA55ED50) * 10
        start = struct.pack("<HHIQ", kind, 257, header, len(content)).ljust(28, b"\0")
        body += (start + struct.pack("<I", architecture)).ljust(header, b"\0") + content
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf(*fat_binaries: bytes, section: bytes = b".nv_fatbin", needed: tuple[str, ...] = ()) -> bytes:
    """A 64-bit ELF file with these in a section, each padded to 8 bytes, and a dynamic section that needs libraries."""
    code = b"".join(one + bytes(-len(one) % 8) for one in fat_binaries)
    names = b"\0" + section + b"\0.shstrtab\0"
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    tags, at = [(5, 64 + 2 * 56)], 1  # DT_STRTAB: an address, which equals the offset here
    for name in needed:
        tags.append((1, at))
        at += len(name) + 1
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in [*tags, (0, 0)])
    offsets = [64 + 2 * 56]
    for part in (strings, dynamic, code, names):
        offsets.append(offsets[-1] + len(part))
    segments = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, offsets[-1], offsets[-1], 1)
    segments += struct.pack("<IIQQQQQQ", 2, 4, offsets[1], offsets[1], offsets[1], len(dynamic), len(dynamic), 8)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, offsets[2], len(code), 0, 0, 8, 0)
    sections += struct.pack("<IIQQQQIIQQ", 2 + len(section), 3, 0, 0, offsets[3], len(names), 0, 0, 1, 0)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, offsets[4], 0, 64, 56, 2, 64, 3, 2)
    return head + segments + strings + dynamic + code + names + sections


# As CUDA 9.0's: Caffe2's own modules have PTX, those of the cuDNN and cuBLAS inside it none.
OWN = fat_binary((MACHINE_CODE, 35), (PTX, 50), (MACHINE_CODE, 50), (MACHINE_CODE, 60), (MACHINE_CODE, 70), header=72)
LIBRARY = fat_binary(*[(MACHINE_CODE, one) for one in (35, 50, 60, 61, 70)])


def caffe2_install(
    folder: Path,
    *modules: bytes,
    operators: bytes = OWN,
    needed: tuple[str, ...] = (),
    library: str = "libcaffe2_gpu.so",
) -> Path:
    """What the ladder reads of an install of Caffe2 (from a wheel)."""
    libraries = folder / "lib" / "python2.7" / "site-packages" / "torch" / "lib"
    libraries.mkdir(parents=True)
    (libraries / library).write_bytes(elf(*modules, needed=needed))
    (libraries / "libcaffe2_detectron_ops_gpu.so").write_bytes(elf(operators))
    return folder
