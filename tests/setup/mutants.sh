#!/usr/bin/env bash
# Changes the files of src that match the patterns $2, one change at a time, and runs these tests of cargo's:
# mutants.sh FOLDER 'PATTERN...' TEST... What no test noticed is listed, and fails. MUTANTS: more options.
set -euo pipefail

folder=$1 patterns=$2
shift 2
files=() tests=()
set -f
for pattern in $patterns; do files+=(--file "src/$pattern"); done
set +f
# To cargo, and not to its tests: else every test would be built for every change.
for option in --locked "$@"; do tests+=(--cargo-arg "$option"); done

mkdir -p "$folder/work"
status=0
# shellcheck disable=SC2086
TMPDIR=$folder/work cargo mutants --output "$folder" --no-shuffle --jobs 2 "${files[@]}" ${MUTANTS:-} "${tests[@]}" || status=$?

found=$folder/mutants.out
count() { wc -l <"$found/$1.txt"; }
caught=$(($(count caught) + $(count timeout)))
figure="$((caught + $(count missed))) changes, $(count missed) unnoticed"
echo "$figure; $(count unviable) do not compile"
if [ -n "${FIGURES:-}" ]; then
    met=$([ "$(count missed)" -eq 0 ] && echo true || echo false)
    printf '{"goal": "R26", "what": "changes of what accepts and denies", "figure": "%s", "met": %s}\n' "$figure" "$met" >>"$FIGURES"
fi
[ "$status" -eq 0 ] || [ "$status" -eq 3 ]
