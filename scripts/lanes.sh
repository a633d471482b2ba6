# shellcheck shell=bash disable=SC2034
# Sourced by test.sh and venv.sh: the lanes of `make test`. Which ansible-core a Python gets, requirements.txt says.
# A lane: ansible-core, first Python, first Python that is too new, what runs. The first lane that this machine has a
# Python for runs everything.
lanes=(
  "2.21 3.12 3.15 everything"
  "2.19 3.11 3.12 ansible-lint, unit tests, scenario site"
)
