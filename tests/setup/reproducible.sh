#!/usr/bin/env bash
# Builds the module twice, from copies of the sources in two other folders and with nothing built before, and
# compares it with the module $1 byte for byte. $2 is the environment with Binaryen.
set -euo pipefail

module=$1 build_env=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sum() { sha256sum <"$1" | cut -d ' ' -f 1; }

expected=$(sum "$module")
for folder in "$work/a" "$work/another/folder"; do
    mkdir -p "$folder"
    tar --exclude=./target --exclude=./dist --exclude='./.venv*' --exclude=./.git -c . | tar -x -C "$folder"
    env -u MAKEFLAGS -u MAKELEVEL make --silent -C "$folder" build \
        CARGO_TARGET_DIR="$folder/target" BUILD_ENV="$build_env" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
    built=$(sum "$folder/$module")
    if [ "$built" != "$expected" ]; then
        printf 'reproducible: %s in %s, %s here\n' "$built" "$folder" "$expected" >&2
        exit 1
    fi
    rm -rf "$folder"
done
printf 'three builds in three folders: sha256 %s\n' "$expected"
if [ "${FIGURES:-}" ]; then
    printf '{"goal": "R27", "what": "the same sources give the same module", "figure": "%s", "met": true}\n' \
        "3 builds in 3 folders, 1 SHA-256" >>"$FIGURES"
fi
