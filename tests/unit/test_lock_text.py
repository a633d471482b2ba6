"""The text of a lock: what it lacks is found wherever it stands, and filled in without touching anything else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.module_utils.lock_text import filled, gaps, without
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
            f"submodules:\n      - path: x\n        repository: https://example.org/x.git\n        commit: {COMMIT}",
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


# --- The closure of a conda package -----------------------------------------------------------------------------------

CHANNEL = """stack_lock:
  caffe2:
    channel:
      specs: [caffe2]
      channels: [https://example.org/caffe2]
      packages: null  # conda chooses them
      inputs:
    packages:
      # Pinned.
      - filename: six.whl
        project: six
      # Of the same day.
      - filename: numpy.whl
        project: numpy

      - {filename: future.tar.gz, project: future}
  cocoapi: {}
"""


def test_a_closure_is_written_an_item_per_line_where_it_was_asked_for() -> None:
    file = {
        "filename": "a-1-0.tar.bz2",
        "source": "url",
        "urls": ["https://example.org/a-1-0.tar.bz2"],
        "licence": None,
    }
    [gap] = gaps(CHANNEL)
    assert (gap.where, gap.lacks) == ("caffe2.channel", ("packages", "inputs"))
    expected = CHANNEL.replace("packages: null  # conda", "packages:  # conda").replace(
        "chooses them\n", "chooses them\n        - a-1-0\n        - b-1.0-0\n"
    )
    expected = expected.replace(
        "inputs:\n",
        """inputs:
        - filename: a-1-0.tar.bz2
          source: url
          urls:
            - https://example.org/a-1-0.tar.bz2
          licence: null
""",
    )
    assert complete(CHANNEL, {"caffe2.channel": {"packages": ["a-1-0", "b-1.0-0"], "inputs": [file]}}) == expected
    assert gaps(expected)[0].lacks == ("sha256", "size", "licence")


def test_a_key_of_the_closure_that_is_not_there_is_added() -> None:
    text = CHANNEL.replace("      packages: null  # conda chooses them\n", "")
    after = complete(text, {"caffe2.channel": {"packages": ["a-1-0"], "inputs": []}})
    assert yaml.safe_load(after)["stack_lock"]["caffe2"]["channel"] == {
        "specs": ["caffe2"],
        "channels": ["https://example.org/caffe2"],
        "packages": ["a-1-0"],
        "inputs": [],
    }


def test_what_conda_installs_leaves_pips_list_and_nothing_else_changes() -> None:
    after = without(CHANNEL, ["caffe2.packages[1]", "caffe2.packages[2]"])
    gone = "      - filename: numpy.whl\n        project: numpy\n"
    assert after == CHANNEL.replace(gone, "").replace("      - {filename: future.tar.gz, project: future}\n", "")


def test_what_does_not_stand_on_lines_of_its_own_is_left_to_a_person() -> None:
    text = "stack_lock: {caffe2: {packages: [{project: six}, {project: numpy}]}}\n"
    with pytest.raises(StackError, match=r"caffe2\.packages\[0\] does not stand on lines of its own"):
        without(text, ["caffe2.packages[0]"])
