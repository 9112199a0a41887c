#!/usr/bin/env bash
# Builds the three images, each on top of the one before.
#
#     docker/build.sh                                   for GPUs
#     BASE=ubuntu:24.04 docker/build.sh                 for a machine without one
#     ENGINE=podman docker/build.sh
#
# The user in the images gets your own numbers, so that files on the shared volume are yours.
set -euo pipefail
cd "$(dirname "$0")/.."

engine="${ENGINE:-docker}"
user=(--build-arg "UID=$(id -u)" --build-arg "GID=$(id -g)")
base=()
if [[ -n "${BASE:-}" ]]; then
    base=(--build-arg "BASE=$BASE")
fi
if [[ "$(id -u)" == 0 ]]; then
    user=() # in a container nobody is root, whoever builds it
fi

# ${x[@]+…}: the bash of macOS, 3.2, calls an empty list unbound.
"$engine" build --file docker/1-cuda.Dockerfile ${base[@]+"${base[@]}"} ${user[@]+"${user[@]}"} --tag course-cuda docker
"$engine" build --file docker/2-conda.Dockerfile --tag course-conda .
"$engine" build --file docker/3-jupyterlab.Dockerfile --tag course-lab .
