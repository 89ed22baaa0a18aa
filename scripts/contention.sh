#!/usr/bin/env bash
# Measures the frame allocator shared by threads, behind one lock and with magazines in front of it, and how often the
# locks are contended.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
Usage: scripts/contention.sh [--draw] [--write]

  (nothing)   measures 1, 2, 4 and 8 threads and prints a table; about a minute
  --draw      prints the table of the last measurement
  --write     also writes the table and the picture into docs/

Environment:
  FAST=1      a quick look
END
}

for word in "$@"; do
  case $word in
    -h | --help) usage; exit ;;
    --draw | --write) ;;
    *) echo "contention.sh: unknown argument $word; see scripts/contention.sh --help" >&2; exit 2 ;;
  esac
done
cargo bench --package ballonet-benches --bench contention -- "$@"
