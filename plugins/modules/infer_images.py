#!/usr/bin/python
"""Put images into the folder of a run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: infer_images
short_description: Put images into the folder of a run
description:
  - Makes C(images/) of a run hold these images and nothing else. Those that lie on the server are linked to.
  - The action plugin of the same name pushes those of the controller that are not there yet, or are others.
options:
  folder: {description: The run's folder., type: path, required: true}
  images:
    description: >-
      The images: C(name) in its folder, C(file), its name in the run, and C(sha256) where it is pushed.
    type: list
    elements: dict
    required: true
  source: {description: 'Folder of the images, on the server or on the controller.', type: path, required: true}
  on_server: {description: Whether that folder is on the server., type: bool, default: false}
"""

RETURN = r"""
missing: {description: 'Names (C(file)) of those that are not there yet.', type: list, returned: success}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import restrict_umask, sha256_of


def is_there(path: str, image: dict[str, str], target: str) -> bool:
    """Whether the folder has an image already: the link to it, or its bytes."""
    if target:
        return os.path.islink(path) and os.readlink(path) == target
    return os.path.isfile(path) and not os.path.islink(path) and bool(sha256_of(path) == image["sha256"])


def put(given: dict[str, object], check: bool) -> tuple[bool, list[str]]:
    """(whether something changed or would, names of those that have to be pushed). Raises OSError."""
    folder, source = os.path.join(str(given["folder"]), "images"), str(given["source"])
    images: list[dict[str, str]] = given["images"]  # type: ignore[assignment]
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    superfluous = there - {image["file"] for image in images}
    targets = {image["file"]: os.path.join(source, image["name"]) if given["on_server"] else "" for image in images}
    missing = [
        image["file"]
        for image in images
        if image["file"] not in there
        or not is_there(os.path.join(folder, image["file"]), image, targets[image["file"]])
    ]
    if not check:
        os.makedirs(folder, exist_ok=True)
        for name in superfluous | (set(missing) & there):
            os.unlink(os.path.join(folder, name))
        if given["on_server"]:
            for name in missing:
                os.symlink(targets[name], os.path.join(folder, name))
    return bool(superfluous or missing), [] if given["on_server"] else missing


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True},
            "source": {"type": "path", "required": True},
            "on_server": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    restrict_umask()
    try:
        changed, missing = put(module.params, module.check_mode)
    except OSError as error:
        module.fail_json(
            msg=f"Images cannot be put into {module.params['folder']}: {error}. Mend that, and run it again."
        )
    module.exit_json(changed=changed, missing=missing)


if __name__ == "__main__":
    main()
