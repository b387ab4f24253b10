#!/usr/bin/env bash
# Changes the files of src that match the patterns $2, one change at a time, and runs the unit tests and these of tests/:
# mutants.sh FOLDER 'PATTERN...' NAME... What no test noticed is listed, and fails. MUTANTS: more options.
# The quick unit tests come first, built and run in two seconds, then those of tests/, and last, for what both left,
# all unit tests, optimised, as the slow ones need it.
set -euo pipefail

folder=$1 patterns=$2
shift 2
files=() tests=()
set -f
for pattern in $patterns; do files+=(--file "src/$pattern"); done
set +f
# To cargo, and not to its tests: else every test would be built for every change.
for name in "$@"; do tests+=(--cargo-arg --test --cargo-arg "$name"); done

slow=()
for name in ledger ten_thousand_applications bad_policies_are_told schema:: plain_loop depth_is_a_counter \
    is_bounded_in callers_who_take_turns no_window_holds_more values_of_another_kind the_host_and_rust_say \
    holds_back_no_more unlisted_applications_are the_number_of_issuers the_number_of_roles a_limit_for_each \
    refuses_what_is_too_long roles_in_every_form no_text_takes_long; do
    slow+=(--skip "$name")
done

# Runs tests on the changes; what is not noticed, or not in time, is no failure yet.
put_to() {
    local status=0
    # shellcheck disable=SC2086
    TMPDIR=$folder/work cargo mutants --output "$folder" --no-shuffle --jobs 2 --cargo-arg --locked \
        "${files[@]}" ${MUTANTS:-} "$@" || status=$?
    case $status in 0 | 2 | 3) ;; *) exit "$status" ;; esac
}

found=$folder/mutants.out
count() { cat "$found/$1.txt" 2>/dev/null | wc -l; }
unviable=0
# What a stage could not compile, the next one counts among what was caught before.
leave() { unviable=$((unviable + $(count unviable))); }

mkdir -p "$folder/work"
rm -rf "$found" "$found.old"
quick=(--profile mutants-first --minimum-test-timeout 20)
put_to "${quick[@]}" --cargo-arg --lib -- -- "${slow[@]}"
leave
put_to "${quick[@]}" --iterate "${tests[@]}"
leave
put_to --profile mutants --iterate --cargo-arg --lib

missed=$(count missed)
caught=$(($(count previously_caught) - unviable + $(count caught) + $(count timeout)))
figure="$((caught + missed)) changes, $missed unnoticed"
echo "$figure; $((unviable + $(count unviable))) do not compile"
if [ -n "${FIGURES:-}" ]; then
    met=$([ "$missed" -eq 0 ] && echo true || echo false)
    printf '{"goal": "R26", "what": "changes of what accepts and denies", "figure": "%s", "met": %s}\n' "$figure" "$met" >>"$FIGURES"
fi
[ "$missed" -eq 0 ]
