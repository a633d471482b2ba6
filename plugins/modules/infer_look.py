#!/usr/bin/python
"""Tell what files on a server an inference or an evaluation is to use."""

from __future__ import annotations

DOCUMENTATION = r"""
module: infer_look
short_description: Tell what files on a server an inference or an evaluation is to use
description: [Lists images and looks at a file of weights that already lie on the server. Changes nothing.]
options:
  images: {description: 'An image, or a folder of them.', type: path, default: ''}
  weights: {description: A file of weights., type: path, default: ''}
"""

RETURN = r"""
folder: {description: The images' folder., type: str, returned: where O(images) is given}
images: {description: 'The images, as C(name), C(size) and C(file).', type: list, returned: where O(images) is given}
left_out: {description: A sentence for each file that is none., type: list, returned: where O(images) is given}
weights: {description: The file of weights., type: str, returned: always}
"""

import os
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.image_folder import look
from ansible.module_utils.stack_installs import StackError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "path", "default": ""},
            "weights": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        found = look(given["images"]) if given["images"] else {}
        if given["weights"]:
            with open(given["weights"], "rb"):
                pass
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"The weights {given['weights']} cannot be read on {socket.gethostname()}: {error.strerror}. "
            "infer_weights_on_server is a full path on the server; infer_weights is a file of this machine, or an "
            "address."
        )
    module.exit_json(changed=False, **found, weights=os.path.realpath(given["weights"]) if given["weights"] else "")


if __name__ == "__main__":
    main()
