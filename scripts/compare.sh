#!/usr/bin/env bash
# Measures our kernel, in release mode, beside Linux on the same QEMU, and prints a table.
set -euo pipefail

usage() {
  cat <<END
Usage: scripts/compare.sh

Prints a table of our kernel, in release mode, beside Linux on the same QEMU 10.0: medians of some runs of each.

Environment:
  RUNS              runs of each (default 5); one of both is about half a minute, most of it Linux's
  BALLONET_KERNEL   another kernel than the release build
END
}

fail() {
  echo "compare.sh: $1; see scripts/compare.sh --help" >&2
  exit 2
}

case ${1-} in
  -h | --help) usage; exit ;;
  ?*) fail "there is nothing to choose by $1" ;;
esac
[[ ${RUNS:-5} =~ ^[1-9][0-9]*$ ]] || fail "RUNS=$RUNS: not a number of runs"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --bin ballonet
# Not the build that cargo makes for benchmarks: the one that people run.
export BALLONET_KERNEL=${BALLONET_KERNEL:-$(realpath "${CARGO_TARGET_DIR:-target}/release/ballonet")}
# The program that measures mostly waits, so it need not be optimized, and is built as the tests are.
cargo bench --profile dev --bench compare
