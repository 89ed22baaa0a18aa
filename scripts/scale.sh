#!/usr/bin/env bash
# Measures the allocator from 1 GiB to 16 TiB of simulated memory, in a few minutes, and writes docs/scale.svg and the table
# in docs/scale.md anew. FAST=1: a quick look, which writes nothing there. --draw: writes them again from the last
# measurement.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo bench --package ballonet-benches --bench scale -- "$@"
