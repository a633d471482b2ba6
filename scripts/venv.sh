#!/usr/bin/env bash
# Make an empty Python environment in .venv from the first Python >= 3.11 found; PYTHON=/path/to/python3 chooses one.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tried by running: a version manager's shim is on PATH even where its Python is not installed, and Debian's python3
# has no ensurepip until python3-venv is installed.
usable() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if usable "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  cat >&2 <<'MESSAGE'
No Python >= 3.11 with its venv module was found on PATH.
Debian or Ubuntu: apt-get install python3-venv. Elsewhere install one, or name it: make PYTHON=/path/to/python3 …
MESSAGE
  return 1
}

python=$(find_python)
echo "Making .venv with $("$python" --version)"
"$python" -m venv --clear .venv
