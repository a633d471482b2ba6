#!/usr/bin/env bash
# Show every obstacle on a throwaway server: how it fails without us, and that it does not with us. Called by
# `make obstacles`. What is there already, the server included, serves again.
# Usage: scripts/obstacles.sh [ID …]
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
. scripts/steps.sh

state=.fleet/obstacles
export PATH="$PWD/.venv/bin:$PATH"
if [ -t 1 ]; then export ANSIBLE_FORCE_COLOR=1; fi

show() { python tests/obstacles/show.py --state $state "$@"; }

provision() {
  ansible-playbook --inventory $state/inventory.yml --extra-vars @mirror/sources.yml site.yml
}

step "System" scripts/system.sh tests
step "Mirror" ansible-playbook playbooks/mirror.yml
step "Throwaway server" show --start "$@"
step "Provision it" provision
step "Obstacles" show "$@"
summary "make obstacles"
printf '\nOne of them again:    make obstacles ARGS=no_display\nRemove the server:    make clean\n'
