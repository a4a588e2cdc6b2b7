#!/usr/bin/env bash
# Every feature alone, without warnings: features.sh [short]. Clippy looks at a library without its tests, once for each set of features.
# The whole workspace, which the test command builds, has all features at the same time and hides what one of them lacks.
#
# Long (after changes of features): no feature and each single feature of diorama-connect, and the other crates alone. Most sets have dependencies
# of their own, which the first run compiles: it takes minutes.
# Short (a step of the test command): sets of diorama-connect whose dependencies are few or shared.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/diorama-target}"
export CARGO_TERM_COLOR=never

failed=()
check() {
    local started=$SECONDS
    if ! cargo clippy --locked --quiet --lib "$@" -- -D warnings; then
        failed+=("$*")
    fi
    printf '%4d s  %s\n' $((SECONDS - started)) "$*"
}

# Features of diorama-connect, as its Cargo.toml lists them; `default` is what the test command builds.
features() {
    sed -n '/^\[features\]/,/^\[/s/^\([a-z0-9_]*\) = .*/\1/p' crates/connect/Cargo.toml | grep -vx default
}

case "${1:-long}" in
short)
    check -p diorama-connect --no-default-features
    for feature in csv feed ws http; do
        check -p diorama-connect --no-default-features --features "$feature"
    done
    ;;
long)
    check -p diorama-core
    check -p diorama-core --features testing
    check -p diorama-inbound
    check -p diorama-gateway
    check -p diorama-connect --no-default-features
    for feature in $(features); do
        check -p diorama-connect --no-default-features --features "$feature"
    done
    ;;
*)
    echo "features.sh [short]" >&2
    exit 64
    ;;
esac
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
