#!/usr/bin/env bash
# What callers can cost a server: attack.sh PATH-TO-DIORAMA [ATTACK...]. For each attack the peak of the server's memory, the
# latency of a steady reader beside it, and what the attackers were answered. Fails if the server is lost or takes absurdly much.
# DIORAMA_ATTACK_SECONDS (12) is how long each attack lasts. Exits with 77 where Python is missing.
set -euo pipefail
program="$(realpath "${1:?the diorama program}")"
command -v python3 >/dev/null || { echo "SKIPPED: the attacks: python3 is missing"; exit 77; }
ulimit -n "$(ulimit -Hn)" || true
export PYTHONDONTWRITEBYTECODE=1
exec python3 "$(dirname "$0")/attack/run.py" "$program" "${@:2}"
