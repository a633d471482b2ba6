"""Re-checks all that a mirror holds, on the controller alone; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleActionFail  # noqa: E402
from ansible.module_utils.mirror_manifest import Check  # noqa: E402
from ansible.module_utils.stack_installs import StackError  # noqa: E402
from ansible.module_utils.stack_progress import Progress  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

REMEDY = (
    "Fill the mirror again where its sources can be reached, `ansible-playbook playbooks/mirror.yml`: it fetches and "
    "builds anew what is missing or altered."
)


class ActionModule(ActionBase):
    """Arguments: path (see the module's documentation)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        mirror = Path(self._task.args["path"]).expanduser()
        progress = Progress()

        def show(came: int, left: int, files: str) -> None:
            if line := progress.line("checked", came, left, files):
                self._display.display(line)

        try:
            check = Check(str(mirror), show)
            problems = check.problems()
        except (OSError, StackError) as error:
            raise AnsibleActionFail(f"{error} {REMEDY}") from error
        if problems:
            raise AnsibleActionFail("\n".join([f"{mirror} is not as it was filled:", *problems, REMEDY]))
        return {"changed": False, "msg": f"{mirror} is as it was filled: {check.summary}."}
