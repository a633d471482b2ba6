"""Images go to a run, and pictures come home, each once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from action_plugin import Action
from run_module import run_module


def images(folder: Path, **contents: bytes) -> list[dict[str, Any]]:
    """Files of a folder, as images with plain names."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [{"name": name, "size": len(content), "file": f"{name}.jpg"} for name, content in contents.items()]


def putting(tmp_path: Path, listed: list[dict[str, Any]], **given: Any) -> Action:
    run = tmp_path / "runs/x"
    run.mkdir(parents=True, exist_ok=True)
    return Action("infer_images", folder=str(run), images=listed, source=str(tmp_path / "here"), **given)


def there(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((tmp_path / "runs/x/images").iterdir())}


def test_only_what_changed_is_pushed_and_what_is_gone_here_goes_there(tmp_path: Path) -> None:
    assert putting(tmp_path, images(tmp_path / "here", a=b"1", b=b"2")).run()["changed"]
    assert there(tmp_path) == {"a.jpg": b"1", "b.jpg": b"2"}
    action = putting(tmp_path, images(tmp_path / "here", a=b"1", b=b"2"))
    assert not action.run()["changed"]
    assert action.commands == []
    action = putting(tmp_path, images(tmp_path / "here", b=b"3", c=b"4"))
    assert action.run()["changed"]
    assert action.shown[-1] == "[gpu1] pushed 2 of 2 images"
    assert there(tmp_path) == {"b.jpg": b"3", "c.jpg": b"4"}


def test_check_mode_pushes_nothing(tmp_path: Path) -> None:
    action = putting(tmp_path, images(tmp_path / "here", a=b"1"))
    assert action.run(check=True)["changed"]


def test_many_images_go_in_pieces(tmp_path: Path) -> None:
    contents = {f"i{number}": bytes([number]) * 3000 for number in range(9)}
    action = putting(tmp_path, images(tmp_path / "here", **contents))
    action.plugin.PIECE = 10000  # type: ignore[attr-defined]
    action.run()
    assert len(action.commands) > 2
    assert there(tmp_path) == {f"{name}.jpg": content for name, content in contents.items()}


def test_a_push_that_broke_is_told_and_goes_on(tmp_path: Path) -> None:
    action = putting(tmp_path, images(tmp_path / "here", a=b"1" * 20000))
    (tmp_path / "runs/x/images").mkdir()
    (tmp_path / "runs/x/images/a.jpg").write_bytes(b"1" * 10000)  # what a broken connection left
    action.run()
    assert there(tmp_path) == {"a.jpg": b"1" * 20000}


def test_images_of_the_server_are_linked_to_and_not_copied(tmp_path: Path) -> None:
    listed = images(tmp_path / "here", a=b"1", b=b"2")
    action = putting(tmp_path, listed, on_server=True)
    assert action.run()["changed"]
    assert (tmp_path / "runs/x/images/a.jpg").readlink() == tmp_path / "here/a"
    assert there(tmp_path) == {"a.jpg": b"1", "b.jpg": b"2"}
    assert not action.run()["changed"]
    assert action.commands == []
    # Pushed ones of the same name take the links' place, and not that of what they lead to.
    assert putting(tmp_path, listed).run()["changed"]
    assert not (tmp_path / "runs/x/images/a.jpg").is_symlink()
    assert (tmp_path / "here/a").read_bytes() == b"1"


def seen(tmp_path: Path, **pictures: bytes) -> Path:
    """A run that has drawn these."""
    run = tmp_path / "run"
    (run / "pictures").mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (run / "pictures" / f"{name}.png").write_bytes(content)
    found = [{"image": name, "seconds": 1.0, "detections": 1, "pictures": [f"{name}.png"]} for name in pictures]
    (run / "results.json").write_text(json.dumps({"images": found, "threshold": 0.7, "total": len(found)}))
    return run


def home(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "home").iterdir() if path.name != "results.json"}


def bringing(tmp_path: Path, run: Path) -> Action:
    action = Action("infer_results", folder=str(run), to=str(tmp_path / "home"))
    run_one = Action._low_level_execute_command

    def execute(command: str, sudoable: bool = True) -> dict[str, Any]:
        said = run_one(action, f"echo 'Welcome to gpu1'; {command}", in_data=b"", sudoable=sudoable)
        return said

    action._low_level_execute_command = execute  # type: ignore[method-assign,assignment]
    return action


def test_pictures_come_home_once_and_those_of_an_earlier_run_go(tmp_path: Path) -> None:
    run = seen(tmp_path, a=bytes(range(256)), b=b"2" * 5000)
    result = bringing(tmp_path, run).run()
    assert (result["changed"], result["brought"]) == (True, 3)
    assert result["seen"]["images"][0]["image"] == "a"
    assert home(tmp_path) == {"a.png": bytes(range(256)), "b.png": b"2" * 5000}
    again = bringing(tmp_path, run)
    assert not again.run()["changed"]
    assert again.commands == []
    (tmp_path / "home/notes.txt").write_text("mine")
    (run / "pictures/a.png").unlink()
    bringing(tmp_path, seen(tmp_path, b=b"3")).run()
    assert home(tmp_path) == {"b.png": b"3", "notes.txt": b"mine"}


def test_check_mode_brings_nothing_home(tmp_path: Path) -> None:
    assert bringing(tmp_path, seen(tmp_path, a=b"1")).run(check=True)["changed"]
    assert not (tmp_path / "home").exists()


def test_a_run_that_has_seen_nothing_yet_brings_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert bringing(tmp_path, tmp_path / "run").run()["seen"] == {}


def test_a_picture_that_came_damaged_is_told_and_does_not_take_its_place(tmp_path: Path) -> None:
    run = seen(tmp_path, a=b"1" * 100)
    action = bringing(tmp_path, run)
    listed = run_module("infer_results", folder=str(run))
    listed["files"]["pictures/a.png"]["sha256"] = hashlib.sha256(b"other").hexdigest()
    action._execute_module = lambda **_given: listed  # type: ignore[method-assign]
    result = action.run()
    assert result["failed"]
    assert "pictures/a.png changed meanwhile, or came damaged. Run it again." in result["msg"]
    assert not (tmp_path / "home/a.png").exists()


@pytest.mark.parametrize("evil", ["../escaped", "{}/escaped"])
def test_old_results_that_name_files_elsewhere_remove_nothing_there(tmp_path: Path, evil: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "escaped").write_text("stays")
    named = {"images": [{"pictures": [evil.format(tmp_path)]}]}
    (tmp_path / "home/results.json").write_text(json.dumps(named))
    bringing(tmp_path, seen(tmp_path, a=b"1")).run()
    assert (tmp_path / "escaped").exists()
