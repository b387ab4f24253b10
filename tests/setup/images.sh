#!/usr/bin/env bash
# Makes images for the compose test where no image registry is reachable: a Debian root by debootstrap,
# with Debian's Prometheus, Envoy $1, the stand-ins $2 and the module $3; tools are unpacked in $4. Prints
# what to put in the environment of `docker compose`. Grafana is in no package registry: it is left out.
set -euo pipefail

envoy=$1 stand_ins=$2 module=$3 tools=$4
release=bookworm mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
prefix=tollgate-test

say() { printf 'images: %s\n' "$*" >&2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! docker image inspect "$prefix/debian:$release" >/dev/null 2>&1; then
    # A root's files belong to root, and its devices are made by it.
    if [ "$(id -u)" != 0 ]; then
        say "debootstrap must run as root: use sudo once, or a place where an image registry answers"
        exit 1
    fi
    debootstrap=$(tests/setup/debian.sh "$tools" debootstrap debootstrap)
    [ -d "$tools/usr/share/debootstrap" ] && export DEBOOTSTRAP_DIR=$tools/usr/share/debootstrap
    say "making a Debian root"
    "$debootstrap" --variant=minbase --include=prometheus "$release" "$work/root" "$mirror" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        exit 1
    }
    rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/dev/*
    tar -C "$work/root" -c . | docker import - "$prefix/debian:$release" >/dev/null
fi

# The image $1 from the Debian root: lines of a Dockerfile on stdin, whose context is $work/context.
image() {
    say "making $prefix/$1"
    { printf 'FROM %s\n' "$prefix/debian:$release" && cat; } >"$work/Dockerfile"
    # The classic builder: the other one asks a registry even for an image that is here.
    DOCKER_BUILDKIT=0 docker build --quiet --tag "$prefix/$1" --file "$work/Dockerfile" "$work/context" \
        >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
}

mkdir "$work/context"
cp "$envoy" "$work/context/envoy"
cp "$stand_ins" "$work/context/stand-ins"
cp "$module" "$work/context/tollgate.wasm"

image stand-ins <<'END'
COPY stand-ins /usr/local/bin/stand-ins
ENTRYPOINT ["/usr/local/bin/stand-ins"]
END
image gateway <<'END'
COPY envoy /usr/local/bin/envoy
WORKDIR /tollgate
COPY tollgate.wasm dist/tollgate.wasm
END
image prometheus <<'END'
ENTRYPOINT ["/usr/bin/prometheus"]
END

cat <<END
STAND_INS_IMAGE=$prefix/stand-ins
GATEWAY_IMAGE=$prefix/gateway
PROMETHEUS_IMAGE=$prefix/prometheus
END
