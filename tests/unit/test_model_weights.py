"""Weights come from a file, a mirror or an address, and have the md5 that they should have."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from ansible.errors import AnsibleActionFail
from ansible.module_utils.model_zoo import md5_in, mirrored_at, present_address
from ansible.module_utils.stack_installs import StackError
from run_module import run_module

CONTENT = b"weights" * 1000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
OTHER = "0" * 32


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_words: Any) -> None:
        pass


class Zoo:
    """A web server on loopback with the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        handler = functools.partial(Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/{path}"

    def put(self, path: str, md5: str | None = MD5, content: bytes = CONTENT) -> str:
        put(self.folder, path, md5, content)
        return self.address(path)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def put(folder: Path, path: str, md5: str | None = MD5, content: bytes = CONTENT) -> Path:
    """Write weights and, where it has one, their .md5sum."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    if md5 is not None:
        file.with_name(f"{file.name}.md5sum").write_text(md5)
    return file


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Zoo]:
    made = Zoo(tmp_path / "zoo")
    yield made
    made.close()


def weights(tmp_path: Path, which: str, **given: Any) -> Action:
    """The task that brings them."""
    arguments = {"weights": which, "cache": str(tmp_path / "cache"), "mirror": f"controller:{tmp_path}/mirror"}
    action = Action("model_weights", **{**arguments, **given})

    def fetch(_self: Any, arguments: dict[str, Any], _variables: Any) -> dict[str, Any]:
        return Action("fetch_artifacts", **arguments).run()

    action.plugin.ActionModule._fetch = fetch
    return action


S3 = "https://s3-us-west-2.amazonaws.com/detectron/358/e2e.yaml/output/train/coco_2014_train%3Acoco/model_final.pkl"


def test_dead_addresses_of_the_zoo_are_those_of_its_present_host() -> None:
    present = S3.replace("https://s3-us-west-2.amazonaws.com", "https://dl.fbaipublicfiles.com")
    assert present_address(S3) == present_address(S3.replace("https:", "http:")) == present_address(present) == present
    assert present_address("https://example.org/detectron/x.pkl") == "https://example.org/detectron/x.pkl"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (S3, "weights/358/e2e.yaml/output/train/coco_2014_train:coco/model_final.pkl"),
        ("https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/R-50.pkl", "weights/ImageNetPretrained/R-50.pkl"),
        ("https://alice:secret@example.org/a/b.pkl?token=x", "weights/a/b.pkl"),
    ],
)
def test_a_mirror_has_a_file_by_its_path_in_the_zoo(address: str, path: str) -> None:
    assert mirrored_at(address) == path


@pytest.mark.parametrize("address", ["https://example.org/", "https://example.org/%2e%2e/%2e%2e/etc/x.pkl"])
def test_an_address_that_leaves_its_folder_or_names_no_file_is_refused(address: str) -> None:
    with pytest.raises(StackError, match="is no address of a file of weights"):
        mirrored_at(address)


def test_an_md5sum_may_name_its_file_and_must_hold_a_sum() -> None:
    assert md5_in(f" {MD5.upper()}  model_final.pkl\n") == MD5
    with pytest.raises(ValueError, match="holds no md5"):
        md5_in("<html>Not found</html>")


def test_an_address_is_fetched_once_and_then_needs_no_network(tmp_path: Path, zoo: Zoo) -> None:
    address = zoo.put("a/model_final.pkl")
    result = weights(tmp_path, address).run()
    assert (result["changed"], Path(result["path"]).read_bytes()) == (True, CONTENT)
    assert result["path"] == f"{tmp_path}/cache/md5/{MD5}/model_final.pkl"
    zoo.close()
    again = weights(tmp_path, address).run()
    assert (again["changed"], again["path"]) == (False, result["path"])


def test_check_mode_says_whether_it_would_be_fetched_and_fetches_nothing(tmp_path: Path, zoo: Zoo) -> None:
    address = zoo.put("model_final.pkl")
    assert weights(tmp_path, address).run(check=True)["changed"]
    assert not (tmp_path / "cache/md5" / MD5).exists()
    weights(tmp_path, address).run()
    assert not weights(tmp_path, address).run(check=True)["changed"]


@pytest.mark.parametrize("given", [{"md5": OTHER}, {}])
def test_bytes_with_another_md5_are_not_used_and_a_corrected_sum_is(
    tmp_path: Path, zoo: Zoo, given: dict[str, str]
) -> None:
    address = zoo.put("model_final.pkl", md5=MD5 if given else OTHER)
    result = weights(tmp_path, address, **given).run()
    assert result["failed"]
    assert f"its bytes do not have the md5 {OTHER}. Fetch it and its .md5sum" in result["msg"]
    assert "(weights/model_final.pkl)" in result["msg"]
    assert not list((tmp_path / "cache").rglob("*.pkl*"))
    zoo.put("model_final.pkl")
    assert weights(tmp_path, address).run()["changed"]


@pytest.mark.parametrize(
    ("which", "given", "words"),
    [
        ("none/there.pkl", {}, "There are no weights "),
        ("http://127.0.0.1:1/a.pkl", {}, "The weights a.pkl could not be fetched. Tried: http://127.0.0.1:1/a.pkl: "),
        ("http://127.0.0.1:1/a.pkl", {"upstream": False}, "Tried: nothing, for stack_upstream is false"),
        ("missing.pkl", {}, "/missing.pkl: HTTP Error 404: File not found. Fetch it and its .md5sum"),
        ("unsummed.pkl", {}, "/unsummed.pkl: HTTP Error 404: File not found."),
        ("page.pkl", {}, "/page.pkl: holds no md5."),
    ],
)
def test_what_cannot_be_had_is_one_sentence_with_a_remedy(
    tmp_path: Path, zoo: Zoo, which: str, given: dict[str, Any], words: str
) -> None:
    zoo.put("unsummed.pkl", md5=None)
    zoo.put("page.pkl", md5="<html>")
    address = zoo.address(which) if "/" not in which else which
    try:
        said = weights(tmp_path, address, **given).run()["msg"]
    except AnsibleActionFail as failure:
        said = str(failure)
    assert words in said
    assert "infer_weights" in said
    assert "Traceback" not in said


def test_an_md5_of_ones_own_needs_none_beside_the_file(tmp_path: Path, zoo: Zoo) -> None:
    address = zoo.put("unsummed.pkl", md5=None)
    assert weights(tmp_path, address, md5=MD5.upper()).run()["changed"]


@pytest.mark.parametrize("kind", ["controller:", "", "http"])
def test_a_mirror_of_any_kind_comes_first(tmp_path: Path, zoo: Zoo, kind: str) -> None:
    put(zoo.folder, "weights/a/model_final.pkl")
    mirror = zoo.address("").rstrip("/") if kind == "http" else f"{kind}{zoo.folder}"
    result = weights(tmp_path, "http://127.0.0.1:1/a/model_final.pkl", mirror=mirror, upstream=False).run()
    assert Path(result["path"]).read_bytes() == CONTENT


def test_a_damaged_file_of_the_mirror_here_is_named_and_not_pushed(tmp_path: Path) -> None:
    put(tmp_path / "mirror", "weights/a/model_final.pkl", content=CONTENT[:-1])
    with pytest.raises(AnsibleActionFail, match=f"does not have the md5 {MD5} that model_final.pkl.md5sum says"):
        weights(tmp_path, "http://127.0.0.1:1/a/model_final.pkl").run()


def test_a_file_of_this_machine_is_pushed_and_kept_by_its_bytes(tmp_path: Path) -> None:
    file = put(tmp_path, "my.pkl", md5=None)
    result = weights(tmp_path, str(file)).run()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert (result["changed"], result["path"]) == (True, f"{tmp_path}/cache/sha256/{sha256}/my.pkl")
    assert not weights(tmp_path, str(file)).run()["changed"]
    file.write_bytes(b"others")
    assert weights(tmp_path, str(file)).run()["changed"]
    with pytest.raises(AnsibleActionFail, match="does not have the md5"):
        weights(tmp_path, str(file), md5=OTHER).run()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weights": "/nowhere.pkl"}, "The weights /nowhere.pkl cannot be read on "),
        ({"images": "/nowhere"}, "There are no images at /nowhere: No such file or directory."),
    ],
)
def test_a_file_that_the_server_does_not_have_is_named(given: dict[str, Any], words: str) -> None:
    result = run_module("infer_look", **given)
    assert result["failed"]
    assert result["msg"].startswith(words)
