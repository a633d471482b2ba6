# shellcheck shell=bash disable=SC2034
# Sourced by test.sh and venv.sh: the lanes of `make test`. Which ansible-core a Python gets, requirements.txt says.
# A lane: ansible-core, first Python, first Python that is too new. The newest one that this machine has a Python for
# runs everything, the others what test.sh's `other_lane` says.
lanes=(
  "2.21 3.12 3.15"
  "2.19 3.11 3.12"
)
