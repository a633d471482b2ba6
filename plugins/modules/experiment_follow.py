#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: experiment_follow
short_description: Show how experiments get on
description:
  - Asks module C(experiment_info) again and again, and shows what is new in each log, until the experiments have ended
    or nothing more is to be waited for.
  - Fails where O(fail) is set and one of them failed, with what is wrong with it.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  only: {description: 'Experiments to follow; all where empty.', type: list, elements: str, default: []}
  signatures: {description: 'What is wrong, by how a log says it.', type: list, elements: dict, default: []}
  to_the_end: {description: Whether to stay until all have ended., type: bool, default: false}
  seconds:
    description: How long to wait for the first sign of learning where O(to_the_end) is not set.
    type: float
    default: 0
  fail: {description: Whether an experiment that failed is this task's failure., type: bool, default: false}
"""

RETURN = r"""
experiments: {description: As module C(experiment_info) tells of them., type: dict, returned: always}
"""
