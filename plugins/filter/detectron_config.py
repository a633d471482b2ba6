"""Filters about Detectron's configs: derive one, judge its schedule, compare it with a checkpoint's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleFilterError  # noqa: E402
from ansible.module_utils import detectron_config as configs  # noqa: E402


def _explained(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, whose refusal is a sentence and no traceback."""

    def explained(*args: Any, **kwargs: Any) -> Any:
        try:
            return filter_(*args, **kwargs)
        except configs.ConfigError as error:
            raise AnsibleFilterError(str(error)) from error

    return explained


@_explained
def detectron_config(baseline: str, gpus: int = 1, comment: str = "", **asked: Any) -> dict[str, Any]:
    """{config, text, differences, notes}: a config derived from a baseline's YAML.

    gpus, and train, test, categories, weights, output and options in `asked`, are those of detectron_config.derive.
    text: its YAML, with `comment` above. differences, notes: lines for a person.
    """
    before = configs.parse(baseline)
    config = configs.derive(baseline, gpus, **asked)
    return {
        "config": config,
        "text": configs.render(config, comment),
        "differences": [str(difference) for difference in configs.differences(before, config)],
        "notes": configs.notes(config, before),
    }


@_explained
def detectron_unscaled(text: str, baseline: str = "", by_name: list[str] | None = None) -> str:
    """Why the schedule of a config's YAML is not what the linear scaling rule gives; empty where it is.

    baseline: the YAML of Detectron's config of the same name, where there is one. by_name: options set for this run.
    """
    found = configs.unscaled(configs.parse(text), configs.parse(baseline) if baseline else None, by_name or ())
    return str(found or "")


@_explained
def detectron_resume_conflicts(before: str, after: str) -> list[str]:
    """What forbids to go on from a checkpoint that was trained with the config `before` with the config `after`."""
    return list(configs.resume_conflicts(configs.parse(before), configs.parse(after)))


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "detectron_config": detectron_config,
            "detectron_unscaled": detectron_unscaled,
            "detectron_resume_conflicts": detectron_resume_conflicts,
        }
