#!/usr/bin/env bash
# Measures the kernel's release build beside Linux on the same QEMU (7.2 and 10.0), with and without huge pages behind
# guest memory; the parameters of free page reporting; and the boot time, beside that of an earlier build.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
Usage: scripts/measure.sh [reporting | ready] [--write]

  (nothing)   both guests in turn; about 5 minutes per run
  reporting   the effect of report-age, report-threshold and report-budget; about 5 minutes
  ready       boot time: this kernel and the one of BALLONET_BEFORE in turn, and this one with 1 TiB of
              memory that the host does not have; about 2 minutes
  --write     also writes the table and the picture into docs/ and the README; else the picture goes to target/tmp

Each prints a table and writes all single values to target/tmp.

Environment:
  RUNS=N            medians of N runs (5; reporting 1; ready 21); RUNS=1 for a quick look
  BALLONET_KERNEL   another build of the kernel
  BALLONET_BEFORE   an earlier build of the kernel, to compare boot times with
END
}

fail() {
  echo "measure.sh: $1; see scripts/measure.sh --help" >&2
  exit 2
}

for word in "$@"; do
  case $word in
    -h | --help) usage; exit ;;
    reporting | ready | --write) ;;
    *) fail "unknown argument $word" ;;
  esac
done
[[ ${RUNS:-5} =~ ^[1-9][0-9]*$ ]] || fail "RUNS=$RUNS: not a number of runs"
[[ -z ${BALLONET_BEFORE-} || -f $BALLONET_BEFORE ]] || fail "BALLONET_BEFORE=$BALLONET_BEFORE: there is no such kernel"
cargo build --release --bin ballonet
# The build that people run, not the one that cargo makes for benchmarks.
export BALLONET_KERNEL=${BALLONET_KERNEL:-$(realpath "${CARGO_TARGET_DIR:-target}/release/ballonet")}
# The measuring program mostly waits: build it as the tests are, without optimization.
cargo bench --profile dev --bench measure -- "$@"
