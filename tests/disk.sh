#!/usr/bin/env bash
# Full and failing disks under the command as it is shipped: a tmpfs of 4 MiB, and strace that lets system calls fail.
# Exits with 77 where it cannot: without root, or without strace on a system that is not Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "skipped: tests/disk.sh: $*"; exit 77; }
[ "$(uname)" = Linux ] || skip "needs Linux"
[ "$(id -u)" = 0 ] || skip "needs root to mount a small file system"
if ! command -v strace >/dev/null; then
    command -v apt-get >/dev/null || skip "needs strace"
    { apt-get update -q && apt-get install -yq strace; } >/dev/null || skip "strace cannot be installed"
fi
small=$(mktemp -d)
mount -t tmpfs -o size=4m diorama-small "$small" || { rmdir "$small"; skip "tmpfs cannot be mounted"; }
trap 'umount "$small"; rmdir "$small"' EXIT
DIORAMA_SMALL_DISK=$small cargo test --locked --test serve kill::full -- --ignored --nocapture --test-threads=1
