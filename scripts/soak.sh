#!/usr/bin/env bash
# A random soak of deflate-on-OOM. See tests/qemu/soak.rs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
Usage: scripts/soak.sh [FILTER]

A program's needs and the host's target conflict, at random, for ten minutes per QEMU version. FILTER names
one: 'qemu-7.2'.

Environment:
  SOAK_SECONDS   how long, per version (600)
  SOAK_SEED      the seed of the random numbers
END
}

case ${1-} in
  -h | --help) usage; exit ;;
  -*) echo "soak.sh: there is no option $1; see scripts/soak.sh --help" >&2; exit 2 ;;
esac
export SOAK_SECONDS=${SOAK_SECONDS:-600}
[[ $SOAK_SECONDS =~ ^[1-9][0-9]*$ ]] || { echo "soak.sh: SOAK_SECONDS=$SOAK_SECONDS: not a number of seconds" >&2; exit 2; }
exec cargo test --test qemu -- --nocapture "soak::${1:-}"
