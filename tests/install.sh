# What test suites that run npm's packages share; sourced. `suite` names what is skipped, `kept` is where packages are kept.

skip() { echo "SKIPPED: $suite: $*"; exit 77; }

# need TOOL PACKAGE...
need() {
    command -v "$1" >/dev/null && return
    shift
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "$* is missing"
    apt-get update -qq && apt-get install -y -qq "$@" >/dev/null || skip "$* cannot be installed"
}

# packages FOLDER: what its package.json names is in $kept/node_modules.
packages() {
    need npm nodejs npm
    [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || skip "node is older than version 20"
    mkdir -p "$kept"
    if ! cmp -s "$1/package.json" "$kept/installed.json"; then
        cp "$1/package.json" "$kept"
        (cd "$kept" && npm install --no-audit --no-fund --silent) || skip "npm's registry cannot be reached"
        cp "$1/package.json" "$kept/installed.json"
    fi
}
