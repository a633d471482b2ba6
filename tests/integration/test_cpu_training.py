"""What runs Detectron without a GPU, on an installed stack: the operators, with the real Caffe2."""

from __future__ import annotations

import re

from tests.integration.site_run import ROOT, FirstRun, Site

PROGRAMS = ROOT / "tests/py27/programs"


def run_program(site: Site, name: str) -> str:
    """What a program of tests/py27/programs prints in the activated environment, with the tools on its path."""
    program = (PROGRAMS / name).read_text()
    return site.shell(f""". {site.prefix}/current/activate.sh
PYTHONPATH=$DETECTRON_GENERATION/tools:$PYTHONPATH python - <<'PROGRAM' 2>&1 || :
{program}
PROGRAM""")


def test_every_cpu_operator_gives_its_formulas_numbers_and_slopes(first_run: FirstRun) -> None:
    said = run_program(first_run.site, "operators.py")
    ran = re.search(r"\nRan (\d+) tests in [\d.]+s\n\nOK\n\Z", said)
    assert ran and int(ran[1]) >= 30, said
