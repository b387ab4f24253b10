#!/usr/bin/env bash
# Makes the virtual environment $1 with exactly the packages of the file $2.
set -euo pipefail

environment=$1 requirements=$2
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    printf 'set-up: Python 3.11 or newer is needed (or name one: make PYTHON=/path/to/python3)\n' >&2
    exit 1
fi
printf 'set-up: %s from %s\n' "$environment" "$requirements" >&2
if ! "$python" -m venv --clear "$environment"; then
    printf 'set-up: no virtual environment could be made; Debian has it in the package python3-venv\n' >&2
    exit 1
fi
printf '*\n' >"$environment/.gitignore"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
