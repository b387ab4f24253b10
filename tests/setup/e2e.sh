#!/usr/bin/env bash
# Runs the end-to-end tests with pytest's arguments "$@": on WORKERS processes, file by file, and then those that measure
# load, alone. Logs go to $E2E_LOGS and $E2E_LOGS-alone.
set -uo pipefail

python=.venv/bin/python logs=$(realpath -m "${E2E_LOGS:-target/e2e}")
no_tests=5 # pytest's exit code when the arguments choose none.

run() {
    local logs=$1
    shift
    E2E_LOGS=$logs "$python" -m pytest -p no:cacheprovider tests/e2e "$@"
}

run "$logs" -m 'not alone' -n "${WORKERS:-2}" --dist loadfile "$@"
shared=$?
run "$logs-alone" -m alone "$@"
alone=$?

# A choice of tests may leave one of the two without any, but not both.
[ $shared -ne $no_tests ] || shared=$((alone == no_tests))
[ $alone -ne $no_tests ] || alone=0
exit $((shared != 0 || alone != 0))
