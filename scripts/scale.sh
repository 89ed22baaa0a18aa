#!/usr/bin/env bash
# Measures the allocator from 1 GiB to 16 TiB of simulated memory, in a few minutes, and updates docs/scale.svg and
# the table in docs/scale.md.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
Usage: scripts/scale.sh [--draw]

Measures the allocator from 1 GiB to 16 TiB of simulated memory, in a few minutes, and rewrites docs/scale.svg and the table
in docs/scale.md.

  --draw      rewrites them from the last measurement

Environment:
  FAST=1      a quick look that does not change them
END
}

for word in "$@"; do
  case $word in
    -h | --help) usage; exit ;;
    --draw) ;;
    *) echo "scale.sh: unknown argument $word; see scripts/scale.sh --help" >&2; exit 2 ;;
  esac
done
cargo bench --package ballonet-benches --bench scale -- "$@"
