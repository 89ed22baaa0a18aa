#!/usr/bin/env bash
# Measures our kernel, in release mode, beside Linux on the same QEMU, 7.2 and 10.0, with huge pages behind guest memory and
# without; what the parameters of free page reporting do; and how long a start takes beside that of an earlier build.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
Usage: scripts/measure.sh [reporting | ready] [--write]

  (nothing)   both guests in turn: prints a table; about 5 minutes a run
  reporting   what report-age, report-threshold and report-budget do: prints a table; about 5 minutes
  ready       how long a start takes: this kernel and the one that BALLONET_BEFORE names in turn, and with 1 TiB of
              memory that the host does not have: prints a table; about 2 minutes
  --write     writes the table and the picture into docs/ and the README; else the picture goes to target/tmp, as do
              all single values

Environment:
  RUNS=N            medians of N runs: 5 unless told, 1 of the parameters, 21 of starts; RUNS=1 for a quick look
  BALLONET_KERNEL   another build of the kernel
  BALLONET_BEFORE   an earlier build of the kernel, to compare starts with
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
    *) fail "there is nothing to measure by $word" ;;
  esac
done
[[ ${RUNS:-5} =~ ^[1-9][0-9]*$ ]] || fail "RUNS=$RUNS: not a number of runs"
[[ -z ${BALLONET_BEFORE-} || -f $BALLONET_BEFORE ]] || fail "BALLONET_BEFORE=$BALLONET_BEFORE: there is no such kernel"
cargo build --release --bin ballonet
# Not the build that cargo makes for benchmarks: the one that people run.
export BALLONET_KERNEL=${BALLONET_KERNEL:-$(realpath "${CARGO_TARGET_DIR:-target}/release/ballonet")}
# The program that measures mostly waits, so it need not be optimized, and is built as the tests are.
cargo bench --profile dev --bench measure -- "$@"
