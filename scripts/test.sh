#!/usr/bin/env bash
# Everything that must be green: lint, types, unit tests, then all Molecule scenarios. Called by `make test`.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
. scripts/steps.sh

export PATH="$PWD/.venv/bin:$PATH"

step "System" scripts/system.sh servers
step "yamllint" yamllint --strict .
step "ansible-lint" ansible-lint
step "ruff" ruff check
step "ruff format" ruff format --check
step "mypy" mypy
step "pytest" pytest
step "Mirror" ansible-playbook playbooks/mirror.yml
step "Molecule" molecule test --all
summary "make test"
