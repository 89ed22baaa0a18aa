#!/usr/bin/env bash
# Usage: scripts/exits.sh [--write]
#
# Counts the kernel's accesses outside memory, and Linux's on the same QEMU: under KVM each such access exits the
# guest. Prints a table by target: from the kernel's first byte on the serial line to *ready* (for Linux: from its
# start to DRIVER_OK), and for each GiB that the balloon inflates and deflates. Takes some minutes.
#
#   --write   also writes the table into docs/exits.md
#
# Environment:
#   BALLONET_KERNEL   another build of the kernel
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1-} in
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; exit ;;
  '' | --write) ;;
  *) echo "exits.sh: unknown argument $1; see scripts/exits.sh --help" >&2; exit 2 ;;
esac
cargo build --release --bin ballonet
export BALLONET_KERNEL=${BALLONET_KERNEL:-$(realpath "${CARGO_TARGET_DIR:-target}/release/ballonet")}
cargo bench --profile dev --bench measure -- exits "$@"
