"""Whatever is wrong with an install, `site.yml --tags verify` notices: by its contents, or by the check ladder."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.breaks.catalogue import catalogue
from tests.breaks.workshop import Workshop
from tests.integration.site_run import FirstRun

# A file of each role's install, and of the generation.
FILES = {
    "nvidia_libs": "lib64/libcudnn.so.7",
    "anaconda2": "lib/python2.7/site-packages/conda/cli/main.py",
    "caffe2": "lib/python2.7/site-packages/numpy/version.py",
    "cocoapi": "PythonAPI/pycocotools/_mask.so",
    "detectron": "detectron/utils/boxes.py",
    "activation": "modulefile",
}


@pytest.fixture(scope="module")
def workshop(first_run: FirstRun) -> Iterator[Workshop]:
    """Breaks the server of the first run; afterwards, verify finds it whole again."""
    workshop = Workshop(first_run.site)
    yield workshop
    done = first_run.site.provision("--tags", "verify")
    assert done.returncode == 0, done.stdout


def verified(workshop: Workshop) -> str:
    """What a verify that has to fail says, in one line."""
    done = workshop.site.provision("--tags", "verify")
    assert done.returncode == 2, done.stdout
    return " ".join(done.stdout.split())


def test_verify_notices_one_bit_in_each_install_and_in_the_generation(workshop: Workshop) -> None:
    """Neither size nor time tells."""
    try:
        for role, path in FILES.items():
            workshop.flip(role, path)
        said = verified(workshop)
    finally:
        workshop.mend()
    for role in FILES:
        title = "The current generation" if role == "activation" else role
        assert re.search(rf"{title} is damaged: \S+ has other content\.", said), said


def test_verify_notices_what_was_built_wrong_and_published(workshop: Workshop) -> None:
    """Everything of the catalogue that does not hide another, at the same time."""
    breaks = [one for one in catalogue() if not one.alone and not one.blind]
    assert {one.role for one in breaks} == set(FILES)
    try:
        workshop.break_(breaks)
        workshop.publish(breaks)
        said = verified(workshop)
    finally:
        workshop.mend()
    failing = set(re.findall(r"FAILED, (\w+):", said))
    assert [one.title for one in breaks if not failing.issuperset(one.ladder)] == [], sorted(failing)
