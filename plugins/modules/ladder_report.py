#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ladder_report
short_description: Hand a server's check ladder to the summary, and fail on failed rungs
description: Runs on the controller alone; costs no remote call.
options:
  ladder: {description: Result of C(check_ladder)., type: dict, required: true}
  stop_at: {description: Rungs whose failure is this task's failure., type: list, elements: str, required: true}
"""

RETURN = r"""
ladder: {description: The ladder as given, for the summary., type: dict, returned: always}
"""
