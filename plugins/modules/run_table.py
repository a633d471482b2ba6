#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_table
short_description: Show, compare and write down the runs of all servers
description:
  - Shows what C(run_log) found on several servers, as one table in which a run that servers share is named once.
  - Runs on the controller alone; costs no remote call.
options:
  servers: {description: What C(run_log) returned, by server., type: dict, required: true}
  missing: {description: Servers that could not be asked., type: list, elements: str, default: []}
  only: {description: 'Names of runs, joined by commas; all where empty.', type: str, default: ''}
  compare: {description: 'Names of runs to compare, joined by commas.', type: str, default: ''}
  file: {description: 'A file to write all that is known into: .json or .csv.', type: str, default: ''}
"""

RETURN = r"""
lines: {description: What was shown., type: list, returned: success}
file: {description: The file that was written., type: str, returned: success}
"""
