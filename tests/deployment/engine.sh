#!/usr/bin/env bash
# Gives a Debian machine what the tests with containers need: an engine, compose and a base image. The image is made of
# Debian's packages, because images cannot be pulled everywhere. What is there already is left as it is.
set -euo pipefail

base="${WINNOW_TEST_BASE:-base/python:3.11}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mirror="$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
    grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ')" || true

as_root() {
    if ((EUID != 0)) || [[ -z "$mirror" ]]; then
        echo "no $1, and only root on Debian can install it here" >&2
        exit 1
    fi
}

packages() {
    as_root "$1"
    apt-get update --quiet
    apt-get install --quiet --yes --no-install-recommends "$@"
}

# Debian 12 has no compose 2; the package of the next release is one static program.
install_compose() {
    as_root "docker compose"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$folder/sources.list"
    mkdir -p "$folder/lists/partial"
    local options=(-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$folder/lists")
    apt-get --quiet "${options[@]}" update
    (cd "$folder" && apt-get --quiet "${options[@]}" download docker-compose)
    dpkg -x "$folder"/docker-compose_*.deb "$folder/compose"
    install -D "$folder/compose/usr/libexec/docker/cli-plugins/docker-compose" /usr/local/lib/docker/cli-plugins/docker-compose
}

start_engine() {
    as_root "running engine"
    setsid dockerd </dev/null >/tmp/dockerd.log 2>&1 &
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        sleep 1
    done
    tail -n 5 /tmp/dockerd.log >&2
    exit 1
}

make_base() {
    command -v debootstrap >/dev/null || packages debootstrap
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/root" "$mirror"
    tar -C "$folder/root" -c . | docker import - "$base"
}

if ! docker info >/dev/null 2>&1; then
    command -v dockerd >/dev/null || packages docker.io
    start_engine
fi
docker compose version >/dev/null 2>&1 || install_compose
docker image inspect "$base" >/dev/null 2>&1 || make_base
docker run --rm "$base" true  # in some sandboxes an engine runs and can start nothing
echo "Engine, compose and $base are there."
