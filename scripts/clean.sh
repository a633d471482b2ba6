#!/usr/bin/env bash
# Stop the throwaway servers and remove what make made. Called by `make clean`.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -d .fleet ]; then
  find .fleet -maxdepth 3 -name client_key -printf '%h\n' | while IFS= read -r state; do
    python3 tests/fleet/fleet.py down --state "$state"
  done
  chmod -R u+w .fleet # installs are read-only
fi
rm -rf .fleet .cache .ansible .venv
find . -path ./mirror -prune -o -name __pycache__ -prune -exec rm -rf {} +
if [ -d mirror ]; then
  echo "Kept: mirror/ with its downloads ($(du -sh mirror | cut -f1)). To remove it too: rm -rf mirror"
fi
