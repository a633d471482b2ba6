"""Which files of a folder are images that Detectron can draw in, under which names, and which server takes which."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.image_folder import look, shares
from ansible.module_utils.stack_installs import StackError
from tiny_coco import png

PNG = png([bytearray(9) for _ in range(2)], 3)
JPEG = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 2, 3, 1) + b"\1\x11\0" + b"\xff\xda\0\2\xff\xd9"


def test_any_mix_of_images_is_taken_under_names_that_the_tool_finds(tmp_path: Path) -> None:
    for name in (
        "a.JPG",
        "b.jpeg",
        "Zoë & co.jpg",
        ".hidden.png",
        "without",
        "$(x).PNG",
        "-rf.jpg",
        "n" * 230 + ".jpg",
    ):
        (tmp_path / name).write_bytes(PNG if name.lower().endswith("png") else JPEG)
    (tmp_path / "folder.png").mkdir()
    found = look(str(tmp_path))
    assert found["left_out"] == []
    names = {image["name"]: image["file"] for image in found["images"]}
    assert len(names) == len(set(names.values())) == 8
    assert (names["a.JPG"], names["b.jpeg"]) == ("a.JPG", "b.jpeg")
    for name in set(names) - {"a.JPG", "b.jpeg"}:
        assert names[name].startswith("image0000") and "." in names[name]


def test_a_plain_name_that_is_there_already_is_not_given_again(tmp_path: Path) -> None:
    for name in ("a b.jpg", "image00001.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    assert [image["file"] for image in look(str(tmp_path))["images"]] == ["image100001.jpg", "image00001.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"hello", "notes.txt is no image that OpenCV reads"),
        ("fake.jpg", b"hello", "fake.jpg is no image that OpenCV reads, whatever its name says"),
        ("empty.png", b"", "empty.png is no image that OpenCV reads, whatever its name says"),
        ("cut.jpg", JPEG[:-2], "cut.jpg is cut short: it does not have its end"),
        ("cut.png", PNG[:-12], "cut.png is cut short: it does not have its end"),
        ("link.png", None, "link.png cannot be read: No such file or directory"),
        (b"caf\xe9.png", PNG, "caf?.png has a name that is not UTF-8"),
    ],
)
def test_what_is_no_whole_image_is_left_out_and_named(
    tmp_path: Path, name: str | bytes, content: bytes | None, words: str
) -> None:
    path = Path(str(tmp_path), name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))
    if content is None:
        path.symlink_to("nowhere")
    else:
        path.write_bytes(content)
    with pytest.raises(StackError, match=r"There is no image in .* that could be used: "):
        look(str(tmp_path))
    (tmp_path / "good.png").write_bytes(PNG)
    found = look(str(tmp_path))
    assert found["left_out"] == [words]
    assert [image["name"] for image in found["images"]] == ["good.png"]


def test_one_image_is_taken_from_among_others(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    found = look(str(tmp_path / "b.png"))
    assert (found["folder"], [image["name"] for image in found["images"]]) == (str(tmp_path), ["b.png"])


def images(*names: str, size: int = 1) -> list[dict[str, Any]]:
    return [{"name": name, "size": size, "file": name} for name in names]


@pytest.mark.parametrize(
    ("listed", "taken"),
    [
        ({"gpu1": images("a", "b", "c")}, {"gpu1": "abc"}),
        ({"gpu1": images("a", "b", "c"), "gpu2": images("a", "b", "c")}, {"gpu1": "ac", "gpu2": "b"}),
        # Folders of their own: each image is done where it is.
        ({"gpu1": images("a", "b"), "gpu2": images("c")}, {"gpu1": "ab", "gpu2": "c"}),
        ({"gpu1": images("a"), "gpu2": images("a", size=2)}, {"gpu1": "a", "gpu2": "a"}),
        ({"gpu1": images("a"), "gpu2": images("a")}, {"gpu1": "a", "gpu2": ""}),
    ],
)
def test_servers_share_the_images_and_each_is_done_once(listed: dict[str, Any], taken: dict[str, str]) -> None:
    found = {server: "".join(image["name"] for image in share) for server, share in shares(listed).items()}
    assert found == taken
