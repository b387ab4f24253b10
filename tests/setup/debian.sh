#!/usr/bin/env bash
# Prints where the program $2 is: on the PATH, or in the folder $1, into which the Debian packages $3...
# are unpacked the first time. Nothing is installed, and nobody has to be root.
set -euo pipefail

folder=$1 program=$2
shift 2

if command -v "$program"; then
    exit
fi
# In bin or in sbin.
unpacked() { find "$folder" -path "*/*bin/$program" -print -quit 2>/dev/null | grep .; }
if unpacked; then
    exit
fi

printf 'set-up: %s from Debian\n' "$program" >&2
if ! command -v apt-get >/dev/null; then
    printf 'set-up: there is no apt-get here to fetch %s with\n' "$program" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get download "$@" >log 2>&1); }
# The lists may be missing, or older than the packages.
if ! fetch "$@" && ! { apt-get update >/dev/null 2>&1 && fetch "$@"; }; then
    cat "$work/log" >&2
    exit 1
fi
mkdir -p "$folder"
for package in "$work"/*.deb; do
    dpkg --extract "$package" "$folder"
done
unpacked
