#!/usr/bin/env bash
# Run a command whose temporary files are in memory, if there is room: the tests make hundreds of
# stores, and each of their writes would wait for a disk.
set -euo pipefail

free_kib=$(df --output=avail --block-size=1K /dev/shm 2>/dev/null | tail -n 1 || true)
options=$(findmnt --noheadings --output OPTIONS /dev/shm 2>/dev/null || echo noexec)
if [ -w /dev/shm ] && [ "${free_kib:-0}" -gt 4000000 ] && [[ ",$options," != *,noexec,* ]]; then
    TMPDIR=$(mktemp -d /dev/shm/tuner-XXXXXX)
    export TMPDIR
    chmod 711 "$TMPDIR" # some tests become another user
    trap 'rm -rf "$TMPDIR"' EXIT
fi
"$@"
