#!/usr/bin/env bash
# A random soak of deflate-on-OOM: ten minutes a version of QEMU, or SOAK_SECONDS. See tests/qemu/soak.rs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export SOAK_SECONDS=${SOAK_SECONDS:-600}
exec cargo test --test qemu -- --nocapture "soak::${1:-}"
