#!/usr/bin/python
"""Bring a model's weights into a server's cache."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_weights
short_description: Bring a model's weights into a server's cache
description:
  - Finds out what the file of an address is, by the C(.md5sum) beside it, in the mirror or at the address itself.
    Addresses of Detectron's model zoo that are dead are those of its present host.
  - The action plugin of the same name takes a file of the controller as well, and has C(fetch_artifacts) bring it.
options:
  weights: {description: 'Address of the file, or for the action plugin a file here.', type: str, default: ''}
  artifact: {description: 'The file, where it is known already.', type: dict, default: {}}
  md5: {description: What its md5 must be; by default what the C(.md5sum) beside it says., type: str, default: ''}
  cache: {description: Folder of the cache., type: path, required: true}
  mirror: {description: 'URL or folder of a mirror, as of C(fetch_artifacts).', type: str, default: ''}
  upstream: {description: Whether the address itself may be asked., type: bool, default: true}
  transfers: {description: 'How many files the controller pushes at once.', type: int, default: 0}
  proxy: {description: 'Proxy of all downloads, as of C(fetch_artifacts).', type: str, default: ''}
  no_proxy: {description: "Hosts and domains without it, joined by commas.", type: str, default: ''}
  ca_bundle: {description: File of the certificates to trust., type: path, default: ''}
"""

RETURN = r"""
artifact: {description: The file as C(fetch_artifacts) takes it., type: dict, returned: success}
path: {description: Where it lies in the cache., type: str, returned: success}
cached: {description: Whether it is there already., type: bool, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.model_zoo import resolve
from ansible.module_utils.stack_fetch import Fetcher, verified
from ansible.module_utils.stack_installs import StackError, restrict_umask
from ansible.module_utils.stack_network import use_network


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "weights": {"type": "str", "default": ""},
            "artifact": {"type": "dict", "default": {}},
            "md5": {"type": "str", "default": ""},
            "cache": {"type": "path", "required": True},
            "mirror": {"type": "str", "default": ""},
            "upstream": {"type": "bool", "default": True},
            "transfers": {"type": "int", "default": 0},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "ca_bundle": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        use_network(given["proxy"], given["no_proxy"], given["ca_bundle"])
        artifact = given["artifact"] or resolve(
            given["weights"], given["md5"], given["cache"], given["mirror"], given["upstream"]
        )
        path = Fetcher(given["cache"], "", None, 0).path(artifact)
        cached = verified(path, artifact)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Weights cannot be kept in {given['cache']}: {error}. Check its space and permissions.")
    module.exit_json(changed=False, artifact=artifact, path=path, cached=cached)


if __name__ == "__main__":
    main()
