#!/usr/bin/env bash
# Prepares the shared volume, refuses to be open to everybody, and becomes the command.
set -euo pipefail

if ! mkdir -p "$COURSE_DATA_DIR" "$COURSE_RUNS_DIR" "$COURSE_HOME"; then
    echo "User $(id -u) may not write to /shared: build the images with --build-arg UID=…" \
        "of the volume's owner." >&2
    exit 1
fi

if [[ "$*" == *jupyter* && -z "${JUPYTER_TOKEN:-}" ]]; then
    echo "Set JUPYTER_TOKEN: whoever reaches JupyterLab can run programs in this container." >&2
    exit 1
fi

exec "$@"
