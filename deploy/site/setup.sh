#!/bin/sh
# Prepares this site: checks the files, brings the image, makes the site's key. It may be run again; it replaces nothing.
set -eu
cd "$(dirname "$0")"

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}
setting() {
    sed -n "s/^$1=//p" .env
}

command -v docker >/dev/null 2>&1 || fail "Docker is not installed on this machine: https://docs.docker.com/engine/install"
docker compose version >/dev/null 2>&1 || fail "Docker's compose is missing (docker compose version): install its plugin."
docker info >/dev/null 2>&1 ||
    fail "Docker does not answer. Is it running, and may this user use it (group docker, or sudo)?"
sha256sum --check --quiet SHA256SUMS ||
    fail "A file is missing or not as the coordinator has packed it: ask for the folder again."

name="$(setting SITE_NAME)" image="$(setting WINNOW_IMAGE)"
there="$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null || true)"
if [ -f image.tar.gz ]; then
    # The name alone does not say it: a newer version has the same one.
    [ "$there" = "$(cat image.id)" ] || docker load --input image.tar.gz
elif [ -z "$there" ]; then
    docker pull "$image" || fail "The image $image cannot be pulled: ask the coordinator for access, or for the image in a file."
fi

# As root of a container without a network, because the key must belong to the user that the SuperNode runs as.
docker run --rm --user 0 --network none --read-only --cap-drop ALL \
    --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER --security-opt no-new-privileges \
    --volume "$PWD/keys:/keys" --volume "$PWD/setup:/setup:ro" --env PYTHONDONTWRITEBYTECODE=1 \
    "$image" python /setup/make_keys.py /keys "$name" "$(setting WINNOW_UID)" "$(setting WINNOW_GID)"

cat <<END

1. Send keys/$name.pub to the coordinator, and read them the fingerprint by telephone. It is not secret, the other keys are.
2. Write the folder with this site's data into .env, as SITE_DATA=/the/folder.
3. When the coordinator has admitted this site:  docker compose up -d
   Then  docker compose logs supernode  shows "SuperNode ID: ..." once it is connected.
END
