#!/usr/bin/env bash
# Makes sure of the toolchain that rust-toolchain.toml names, and writes to the file $1 what to
# source before cargo. Where rustup cannot fetch it, any newer toolchain that has the target serves; with EXACT_RUST=1
# none does, since another compiler gives other bytes.
set -euo pipefail

environment=$1
channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
target=wasm32-wasip1
minimum=1.96

say() { printf 'set-up: %s\n' "$*" >&2; }

# Whether a version may stand in for the one that is named.
serves() {
    if [ "${EXACT_RUST:-}" = 1 ]; then
        [ "$1" = "$channel" ]
    else
        [ "$(printf '%s\n' "$minimum" "$1" | sort -V | head -n 1)" = "$minimum" ]
    fi
}

# Whether `rustc`, as called by "$@", can compile for the host and for the target.
compiles_target() {
    local libraries
    libraries=$("$@" --print target-libdir --target "$target" 2>/dev/null) && [ -d "$libraries" ]
}

use() {
    mkdir -p "$(dirname "$environment")"
    printf '%s\n' "$1" >"$environment"
    exit 0
}

if command -v rustup >/dev/null; then
    installed() {
        compiles_target rustup run "$channel" rustc &&
            rustup run "$channel" cargo fmt --version >/dev/null 2>&1 &&
            rustup run "$channel" cargo clippy --version >/dev/null 2>&1
    }
    if ! installed; then
        say "installing Rust $channel with rustup"
        # Asked for by name: RUSTUP_AUTO_INSTALL=0 keeps rust-toolchain.toml from doing it.
        rustup toolchain install "$channel" --profile minimal -c rustfmt -c clippy -t "$target" >&2 || true
    fi
    if installed; then
        use "export RUSTUP_TOOLCHAIN=$channel"
    fi
    say "rustup could not install Rust $channel; looking for another toolchain"
    for toolchain in $(rustup toolchain list | awk '{print $1}'); do
        version=$(rustup run "$toolchain" rustc --version 2>/dev/null | awk '{print $2}')
        if serves "$version" && compiles_target rustup run "$toolchain" rustc; then
            say "using $toolchain ($version)"
            use "export RUSTUP_TOOLCHAIN=$toolchain"
        fi
    done
elif command -v rustc >/dev/null; then
    version=$(rustc --version | awk '{print $2}')
    if serves "$version" && compiles_target rustc; then
        say "no rustup; using rustc $version"
        use "true"
    fi
fi

if [ "${EXACT_RUST:-}" = 1 ]; then
    cat >&2 <<END
set-up: Rust $channel with the target $target is not here, and EXACT_RUST=1 takes no other: a release is built with the
toolchain of rust-toolchain.toml, so that others get the same bytes from the same sources. By https://rustup.rs and then:
    rustup toolchain install $channel --profile minimal -c rustfmt -c clippy -t $target
For a module of your own, \`make build\` takes $minimum or newer.
END
    exit 1
fi

cat >&2 <<END
set-up: no Rust toolchain can build this module. It needs rustc $minimum or newer with the
target $target, for example by https://rustup.rs and then:
    rustup toolchain install $channel --profile minimal -c rustfmt -c clippy -t $target
END
exit 1
