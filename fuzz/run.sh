#!/usr/bin/env bash
# Runs targets under libFuzzer, each for FUZZ_SECONDS: run.sh FOLDER [TARGET...]. The corpus stays in FOLDER.
set -euo pipefail
cd "$(dirname "$0")"
folder=$1
shift

export RUSTUP_TOOLCHAIN=${NIGHTLY:-nightly}
if ! rustc --version >/dev/null 2>&1; then
    echo "fuzz: libFuzzer needs $RUSTUP_TOOLCHAIN Rust: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi

# Looking for leaks needs ptrace, which containers forbid, and fails now and then where it is; R8 measures memory.
export ASAN_OPTIONS=detect_leaks=0

host=$(rustc -vV | sed -n 's/^host: //p')
# cargo-fuzz cannot be told `--locked`. This can, and fails where Cargo.lock does not fit; one that fits is kept to.
cargo fetch --locked --target "$host"
cargo fuzz build --fuzz-dir . --target-dir "$folder/target"
built=$folder/target/$host/release
mapfile -t all < <("$built/prepare" "$folder")
[ $# -gt 0 ] || set -- "${all[@]}"

# libFuzzer's own limit is in seconds; `make fuzz-smoke` measures 100 ms, without a sanitizer.
for target in "$@"; do
    mkdir -p "$folder/corpus/$target" "$folder/found/$target"
    log=$folder/$target.log
    printf '%s: ' "$target"
    if ! "$built/$target" "$folder/corpus/$target" "$folder/seeds/$target" -dict="$folder/$target.dict" \
        -artifact_prefix="$folder/found/$target/" -max_total_time="$FUZZ_SECONDS" -max_len=4096 -timeout=1 \
        -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log"
        exit 1
    fi
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    echo "$inputs inputs, ${edges#cov: } edges"
    if [ -n "${FIGURES:-}" ]; then
        met=$([ "$FUZZ_SECONDS" -ge 60 ] && echo true || echo false)
        printf '{"goal": "R5", "what": "fuzzing under libFuzzer: %s", "figure": "%s inputs in %s s, 0 crashes, 0 hangs", "met": %s}\n' \
            "$target" "$inputs" "$FUZZ_SECONDS" "$met" >>"$FIGURES"
    fi
done
