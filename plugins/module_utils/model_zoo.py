"""Weights by their address: where Detectron's model zoo is now, and what is known of a file before it is fetched.

Runs on servers and on the controller: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
from typing import Any

from ansible.module_utils.stack_fetch import NO_ANSWER, Fetcher, in_mirror, is_url, open_url, without_secrets
from ansible.module_utils.stack_installs import StackError, read_json, write_json
from ansible.module_utils.stack_network import advice

ZOO = "https://dl.fbaipublicfiles.com/detectron/"
# Where it was until 2018-10, and where configs and pages of that time still point to: gone.
DEAD = re.compile(r"https?://(?:s3-us-west-2\.amazonaws\.com/detectron|detectron\.s3[.-][\w.-]*amazonaws\.com)/")
ANSWER = 4096  # bytes of a .md5sum that are read
REMEDY = (
    "Fetch it and its .md5sum on a machine that can, and put both into the mirror ({mirrored}), or give the file as "
    "infer_weights."
)


def present_address(address: str) -> str:
    """Where a file of the zoo is now; any other address as it is."""
    return DEAD.sub(ZOO, address)


def mirrored_at(address: str) -> str:
    """Where a mirror has the file of an address: weights/ and its path in the zoo, or on its host."""
    address = present_address(address)
    path = address[len(ZOO) :] if address.startswith(ZOO) else urllib.parse.urlsplit(address).path.lstrip("/")
    parts = urllib.parse.unquote(path).split("/")
    if ".." in parts or not parts[-1]:
        raise StackError(f"{without_secrets(address)} is no address of a file of weights.")
    return "/".join(["weights", *parts])


def md5_in(text: str) -> str:
    """The sum that a .md5sum states. Raises ValueError."""
    found = re.match(r"\s*([0-9a-fA-F]{32})\b", text)
    if not found:
        raise ValueError("holds no md5")
    return found[1].lower()


def artifact_of(address: str, md5: str, size: int) -> dict[str, Any]:
    """An artifact as module fetch_artifacts takes it."""
    where = mirrored_at(address)
    return {
        "filename": os.path.basename(where),
        "md5": md5,
        "size": size,
        "source": "url",
        "urls": [present_address(address)],
        "mirrored_at": where,
        "remedy": REMEDY.format(mirrored=where),
    }


def _note(cache: str, address: str) -> str:
    """The file that keeps what an address said of itself, so that what is in the cache needs no network."""
    return os.path.join(cache, "md5", "addresses", f"{hashlib.sha256(address.encode()).hexdigest()[:32]}.json")


def resolve(address: str, md5: str, cache: str, mirror: str, upstream: bool) -> dict[str, Any]:
    """The artifact of an address, by what its .md5sum and its size are; the mirror is asked first.

    md5: what it must be; "" for what its .md5sum says. Raises StackError naming what each place answered.
    """
    known = read_json(_note(cache, address))
    if known and md5 in ("", known["md5"]):
        artifact = artifact_of(address, known["md5"], known["size"])
        if os.path.isfile(Fetcher(cache, "", None, 0).path(artifact)):
            return artifact
    where, tried = mirrored_at(address), []
    places = [in_mirror(mirror, where)] if mirror else []
    for place in places + [present_address(address)] * upstream:
        try:
            stated = md5.lower() or md5_in(_read(f"{place}.md5sum"))
            artifact = artifact_of(address, stated, _size(place))
            break
        except NO_ANSWER as error:
            tried.append(f"{without_secrets(place)}: {error}")
    else:
        reasons = "; ".join(tried) or "nothing, for stack_upstream is false and no mirror is set"
        raise StackError(
            f"The weights {os.path.basename(where)} could not be fetched. Tried: {reasons}. "
            f"{advice(reasons) or REMEDY.format(mirrored=where)}"
        )
    os.makedirs(os.path.dirname(_note(cache, address)), exist_ok=True)
    write_json(_note(cache, address), {"address": without_secrets(address), "md5": stated, "size": artifact["size"]})
    return artifact


def _read(place: str) -> str:
    with open_url(place) if is_url(place) else open(place, "rb") as stream:
        return str(stream.read(ANSWER).decode("utf-8", "replace"))


def _size(place: str) -> int:
    """Bytes of a file. Raises NO_ANSWER."""
    if not is_url(place):
        return os.path.getsize(place)
    with open_url(place) as answer:
        length = answer.headers.get("Content-Length")
    if not length or not length.isdigit():
        raise ValueError("does not say how large the file is")
    return int(length)
