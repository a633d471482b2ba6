"""The text of a lock: what it lacks is found wherever it stands, and filled in without touching anything else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.module_utils.lock_text import filled, gaps
from ansible.module_utils.stack_installs import StackError

SUM = "ab" * 32
COMMIT = "c1" * 20

LOCK = f"""---
# Mine.
stack_lock:
  name: mine   # as the folder
  version: "1.10"
  caffe2:
    packages:
      # The newest that still takes Python 2.7.
      - filename: null  # whichever fits
        source: pypi
        project: six
        version: "1.11.0"
        sha256: null  # not known yet
        licence: MIT
      - {{filename: a.whl, source: pypi, project: a, version: "1", sha256: , licence: MIT}}
      - filename: complete.whl
        source: pypi
        sha256: {SUM}
        size: 3
        licence: MIT
  nccl:
    filename: nccl.txz
    source: url
    urls:
      - https://example.org/nccl.txz
    sha256: {SUM}
    size: ~
    licence: NVIDIA
  detectron: {{repository: https://example.org/d.git, commit: 'main'}}
  cocoapi:
    repository: https://example.org/c.git
    commit: {COMMIT}
    submodules:"""


def complete(text: str, found: dict[str, dict[str, Any]]) -> str:
    return str(filled(text, [(gap, found[gap.where]) for gap in gaps(text)]))


def test_what_is_lacking_is_found_wherever_it_stands() -> None:
    assert [(gap.where, gap.lacks) for gap in gaps(LOCK)] == [
        ("caffe2.packages[0]", ("filename", "sha256", "size")),
        ("caffe2.packages[1]", ("sha256", "size")),
        ("nccl", ("size",)),
        ("detectron", ("commit",)),
        ("cocoapi", ("submodules",)),
    ]
    assert [gap.name for gap in gaps(LOCK)][:2] == ["caffe2.packages[0]", "caffe2.packages[1] (a.whl)"]


def test_values_are_filled_in_and_every_other_character_stays() -> None:
    file = {"filename": "six-1.11.0.whl", "sha256": SUM, "size": 7}
    after = complete(
        LOCK,
        {
            "caffe2.packages[0]": file,
            "caffe2.packages[1]": {"sha256": SUM, "size": 8},
            "nccl": {"size": 9},
            "detectron": {"commit": COMMIT},
            "cocoapi": {"submodules": [{"path": "x", "repository": "https://example.org/x.git", "commit": COMMIT}]},
        },
    )
    expected = LOCK
    for old, new in (
        ("filename: null  # whichever", "filename: six-1.11.0.whl  # whichever"),
        ("sha256: null  # not known yet\n", f"sha256: {SUM}  # not known yet\n        size: 7\n"),
        ("sha256: , licence", f"sha256: {SUM}, size: 8 , licence"),
        ("size: ~", "size: 9"),
        ("commit: 'main'", f"commit: {COMMIT}"),
        (
            "submodules:",
            f'submodules: [{{"path": "x", "repository": "https://example.org/x.git", "commit": "{COMMIT}"}}]',
        ),
    ):
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    assert after == expected
    assert gaps(after) == []
    lock = yaml.safe_load(after)["stack_lock"]
    assert lock["caffe2"]["packages"][0] == {
        **file,
        "source": "pypi",
        "project": "six",
        "version": "1.11.0",
        "licence": "MIT",
    }
    assert lock["cocoapi"]["submodules"][0]["commit"] == COMMIT


@pytest.mark.parametrize("value", ["0" * 64, "1" * 40, "3.10", "yes", "a: b", "a b.whl", 5, [], "null"])
def test_a_value_is_read_back_as_it_was_found(value: Any) -> None:
    text = "stack_lock:\n  d:\n    repository: r\n    commit: null\n"
    assert yaml.safe_load(complete(text, {"d": {"commit": value}}))["stack_lock"]["d"]["commit"] == value


def test_a_missing_key_is_added_at_the_end_of_a_file_without_a_last_newline() -> None:
    text = f"stack_lock:\n  f:\n    filename: a\n    source: url\n    licence: MIT\n    sha256: {SUM}"
    assert complete(text, {"f": {"size": 1}}) == text + "\n    size: 1"


def test_an_object_that_an_alias_repeats_is_one() -> None:
    text = "stack_lock:\n  a: &file {source: url, filename: a, sha256: null, size: 1, licence: MIT}\n  b: *file\n"
    assert [gap.where for gap in gaps(text)] == ["a"]


def test_a_sum_without_a_source_cannot_be_computed() -> None:
    assert [gap.lacks for gap in gaps("stack_lock: {f: {filename: a, sha256: null}}")] == [("source",)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no stack_lock"),
        ("- a", "no stack_lock"),
        ("stack: {}", "no stack_lock"),
        ("stack_lock: [", "cannot be read"),
        ("stack_lock: {a: !vault x}\n", "cannot be read"),
    ],
)
def test_other_text_is_refused(text: str, says: str) -> None:
    with pytest.raises(StackError, match=says):
        gaps(text)
