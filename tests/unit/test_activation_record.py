"""Which recorded check ladders role activation takes for the present state, instead of climbing again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

VARS = yaml.safe_load((Path(__file__).resolve().parents[2] / "roles/activation/vars/main.yml").read_text())
RECORD: dict[str, Any] = {
    "digest": "d1",
    "driver": "580",
    "rungs": [{"status": "passed"}, {"status": "not_applicable"}],
}


@pytest.mark.parametrize(
    ("ladder", "run_tags", "counts"),
    [
        pytest.param(RECORD, ["all"], True, id="same-generation-same-driver"),
        pytest.param({}, ["all"], False, id="none-yet"),
        pytest.param({**RECORD, "digest": "d0"}, ["all"], False, id="another-generation"),
        pytest.param({**RECORD, "driver": "570"}, ["all"], False, id="another-driver"),
        pytest.param({**RECORD, "rungs": [{"status": "failed"}]}, ["all"], False, id="failed-and-perhaps-mended"),
        pytest.param(RECORD, ["verify"], False, id="asked-for"),
    ],
)
def test_a_recorded_ladder_counts_only_when_nothing_can_have_changed(
    ladder: dict[str, Any], run_tags: list[str], counts: bool
) -> None:
    rendered = jinja2.Template(VARS["__activation_ladder_recorded"]).render(
        stack_lookup={"ladder": ladder, "driver": "580"}, __activation_digest="d1", ansible_run_tags=run_tags
    )
    assert rendered == str(counts)
