#!/usr/bin/env bash
# Measures our kernel, in release mode, beside Linux on the same QEMU, and prints a table. RUNS=N: medians of N runs
# (5 unless told). Linux takes its time: a run of both is about half a minute.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --bin ballonet
# Not the build that cargo makes for benchmarks: the one that people run.
export BALLONET_KERNEL=${BALLONET_KERNEL:-$(realpath "${CARGO_TARGET_DIR:-target}/release/ballonet")}
# The program that measures mostly waits, so it need not be optimized, and is built as the tests are.
cargo bench --profile dev --bench compare
