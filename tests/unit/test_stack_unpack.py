"""Archives: what they hold comes out, and nothing of a hostile one."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from ansible.module_utils.stack_installs import StackError
from ansible.module_utils.stack_unpack import unpack

Entry = tuple[str, str | bytes]
"""Name of a tar's member and: content (bytes), target of a symbolic link ("->x"), of a hard link ("=x"), or a kind."""

Writing = Literal["w:", "w:gz", "w:bz2", "w:xz"]

KINDS = {"dir": tarfile.DIRTYPE, "device": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE}


def make_tar(path: Path, entries: list[Entry], mode: int = 0o644, how: Writing = "w:") -> Path:
    with tarfile.open(path, how) as archive:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if isinstance(what, bytes):
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
                continue
            if what.startswith("->"):
                info.type, info.linkname = tarfile.SYMTYPE, what[2:]
            elif what.startswith("="):
                info.type, info.linkname = tarfile.LNKTYPE, what[1:]
            else:
                info.type = KINDS[what]
            archive.addfile(info)
    return path


def make_zip(path: Path, entries: list[tuple[str, bytes, int]]) -> Path:
    """`entries`: name, content, Unix mode."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.create_system = 3  # Unix
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def make_deb(path: Path, data: Path) -> Path:
    members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.read_bytes())]
    with path.open("wb") as stream:
        stream.write(b"!<arch>\n")
        for name, content in members:
            stream.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content)
            stream.write(b"\n" * (len(content) % 2))
    return path


def listed(folder: Path) -> dict[str, bytes | str]:
    """Files with content and links with target below `folder`."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


ALL: list[Entry] = [
    ("d", "dir"),
    ("d/file", b"text"),
    ("d/link", "->file"),
    ("d/same", "=d/file"),
    ("e/deep/file", b"deep"),
]
UNPACKED = {"d/file": b"text", "d/link": "file", "d/same": b"text", "e/deep/file": b"deep"}


@pytest.mark.parametrize("how", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_comes_out_whole(tmp_path: Path, how: Writing) -> None:
    src = make_tar(tmp_path / "a.tar", ALL, how=how)
    assert unpack(str(src), str(tmp_path / "out"), [], False) == (3, 12)
    assert listed(tmp_path / "out") == UNPACKED


def test_a_zip_comes_out_whole(tmp_path: Path) -> None:
    entries = [("d/", b"", 0o40755), ("d/file", b"text", 0o100644), ("d/link", b"file", 0o120777), ("x", b"", 0)]
    src = make_zip(tmp_path / "a.whl", entries)
    assert unpack(str(src), str(tmp_path / "out"), [], False) == (2, 4)
    assert listed(tmp_path / "out") == {"d/file": b"text", "d/link": "file", "x": b""}


def test_a_debian_package_comes_out_whole(tmp_path: Path) -> None:
    data = make_tar(tmp_path / "data.tar.xz", [("./", "dir"), ("./usr/file", b"text")], how="w:xz")
    src = make_deb(tmp_path / "a.deb", data)
    assert unpack(str(src), str(tmp_path / "out"), [], False) == (1, 4)
    assert listed(tmp_path / "out") == {"usr/file": b"text"}


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", [("evil", b"", 0o644)])
    src = make_tar(tmp_path / "a.tar", [("file", b"text"), ("inner.zip", inner.read_bytes())])
    unpack(str(src), str(tmp_path / "out"), [], False)
    assert sorted(listed(tmp_path / "out")) == ["file", "inner.zip"]


@pytest.mark.parametrize(
    ("patterns", "flatten", "names"),
    [
        (["d/*"], False, ["d/file", "d/link", "d/same"]),
        (["d/file", "e/*/file"], False, ["d/file", "e/deep/file"]),
        (["d/same"], True, ["same"]),  # the file that it is a hard link to is not chosen
        (["d/*"], True, ["file", "link", "same"]),
        (["*/deep/*"], True, ["file"]),
    ],
)
def test_members_are_chosen_by_patterns(tmp_path: Path, patterns: list[str], flatten: bool, names: list[str]) -> None:
    src = make_tar(tmp_path / "a.tar", ALL)
    unpack(str(src), str(tmp_path / "out"), patterns, flatten)
    assert sorted(listed(tmp_path / "out")) == names


def test_of_two_members_of_one_name_the_later_counts(tmp_path: Path) -> None:
    src = make_tar(tmp_path / "a.tar", [("file", b"first"), ("file", b"second")])
    unpack(str(src), str(tmp_path / "out"), [], False)
    assert listed(tmp_path / "out") == {"file": b"second"}


@pytest.mark.parametrize(
    ("mode", "after"), [(0o6755, 0o755), (0o4777, 0o755), (0o2644, 0o644), (0o666, 0o644), (0o000, 0o644)]
)
def test_setuid_and_write_permission_for_others_are_dropped(tmp_path: Path, mode: int, after: int) -> None:
    tar = make_tar(tmp_path / "a.tar", [("folder", "dir"), ("file", b"")], mode)
    wheel = make_zip(tmp_path / "a.whl", [("file", b"", stat.S_IFREG | mode)])
    for src in (tar, wheel):
        unpack(str(src), str(tmp_path / src.suffix), [], False)
        assert stat.S_IMODE((tmp_path / src.suffix / "file").stat().st_mode) == after
    assert stat.S_IMODE((tmp_path / ".tar" / "folder").stat().st_mode) & 0o7022 == 0


HOSTILE: dict[str, tuple[list[Entry], str]] = {
    "absolute": ([("/tmp/evil", b"")], "leads outside"),
    "parent": ([("../evil", b"")], "leads outside"),
    "parent later": ([("a/../../evil", b"")], "leads outside"),
    "backslash": ([("..\\evil", b"")], "leads outside"),
    "link to an absolute path": ([("out", "->/etc")], "a link out to /etc, outside"),
    "link to the parent": ([("out", "->..")], "outside its folder"),
    "link that climbs": ([("a/out", "->../../etc")], "outside its folder"),
    "links that climb together": ([("d", "dir"), ("d/up", "->.."), ("out", "->d/up/..")], "outside its folder"),
    "links that climb in turn": ([("a", "->b/x"), ("b/x", "->../c"), ("c", "->a/../..")], "outside its folder"),
    "links in a circle": ([("a", "->b"), ("b", "->a")], "outside its folder"),
    "below a link": ([("out", "->inside"), ("out/evil", b"")], "below out, which is no folder"),
    "below a link that comes later": ([("out/evil", b""), ("out", "->inside")], "below out, which is no folder"),
    "below a file": ([("file", b""), ("file/evil", b"")], "below file, which is no folder"),
    "hard link out": ([("evil", "=/etc/passwd")], "hard link evil to /etc/passwd, not in it"),
    "hard link to a link": ([("a", "->b"), ("evil", "=a")], "not in it"),
    "hard link before its file": ([("evil", "=file"), ("file", b"")], "not in it"),
    "device": ([("null", "device")], "device or a pipe"),
    "block device": ([("disk", "block")], "device or a pipe"),
    "pipe": ([("pipe", "pipe")], "device or a pipe"),
    "device after a file of its name": ([("a", b""), ("a", "device")], "device or a pipe"),
}


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to unpack below; afterwards there is nothing in it or around it."""
    around = tmp_path / "around"
    around.mkdir()
    yield around / "out"
    assert list(around.iterdir()) == []


@pytest.mark.parametrize(("entries", "why"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_tar_is_refused_before_anything_is_written(
    tmp_path: Path, unchanged: Path, entries: list[Entry], why: str
) -> None:
    src = make_tar(tmp_path / "a.tar", [("innocent", b"text"), *entries])
    with pytest.raises(StackError, match=why):
        unpack(str(src), str(unchanged), [], False)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (("../evil", b"", 0o100644), "leads outside"),
        (("/evil", b"", 0o100644), "leads outside"),
        (("a\\..\\evil", b"", 0o100644), "leads outside"),
        (("out", b"/etc", 0o120777), "outside its folder"),
        (("out", b"\xff\xfe", 0o120777), "not a whole archive"),
        (("pipe", b"", 0o010644), "not a file, folder or link"),
        (("device", b"", 0o020644), "not a file, folder or link"),
    ],
)
def test_a_hostile_zip_is_refused_before_anything_is_written(
    tmp_path: Path, unchanged: Path, entry: tuple[str, bytes, int], why: str
) -> None:
    src = make_zip(tmp_path / "a.zip", [("innocent", b"text", 0o100644), entry])
    with pytest.raises(StackError, match=why):
        unpack(str(src), str(unchanged), [], False)


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path, unchanged: Path) -> None:
    src = make_tar(tmp_path / "a.tar", ALL)
    with pytest.raises(StackError, match=r"holds nothing named none\*\. Is it the right archive\?"):
        unpack(str(src), str(unchanged), ["d/*", "none*"], False)


def test_flattening_does_not_lose_a_file(tmp_path: Path, unchanged: Path) -> None:
    src = make_tar(tmp_path / "a.tar", ALL)
    with pytest.raises(StackError, match="holds file in several folders"):
        unpack(str(src), str(unchanged), [], True)


def damaged_zip(path: Path) -> None:
    make_zip(path, [("file", b"text" * 100, 0o644)])
    os.truncate(path, path.stat().st_size - 10)


def encrypted_zip(path: Path) -> None:
    make_zip(path, [("a", b"text", 0o120777)])
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)


def half_of(how: Writing) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        make_tar(path, [("file", os.urandom(100_000))], how=how)
        os.truncate(path, path.stat().st_size // 2)

    return make


def deb_without_data(path: Path) -> None:
    path.write_bytes(b"!<arch>\n" + f"{'debian-binary':<48}{4:<10}`\n2.0\n".encode())


def deb_of_nonsense(path: Path) -> None:
    path.write_bytes(b"!<arch>\n" + b"x" * 60)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_bytes(b""), "not a whole archive"),
        (lambda path: path.write_text("<html>Sign in</html>"), r"not a whole archive .*: file could not be opened"),
        (damaged_zip, "not a whole archive .*: File is not a zip file"),
        (encrypted_zip, "not a whole archive .*encrypted"),
        (half_of("w:"), "not a whole archive"),
        (half_of("w:gz"), "not a whole archive"),
        (half_of("w:xz"), "not a whole archive"),
        (deb_without_data, "without data"),
        (deb_of_nonsense, "not a whole archive"),
    ],
)
def test_what_is_cut_or_of_another_kind_is_said_to_be(
    tmp_path: Path, unchanged: Path, make: Callable[[Path], object], why: str
) -> None:
    make(tmp_path / "a")
    with pytest.raises(StackError, match=why) as caught:
        unpack(str(tmp_path / "a"), str(unchanged), [], False)
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_not_there_is_an_os_error(tmp_path: Path, unchanged: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpack(str(tmp_path / "none"), str(unchanged), [], False)
