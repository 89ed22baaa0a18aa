#!/usr/bin/env bash
# Compares the balloon on virtio-mmio with the one on PCI, on one machine type: by time, and by instructions.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<END
Usage: scripts/mmio-rate.sh [ROUNDS] [KERNEL]

Boots KERNEL (default: the release build) with mode=bench on QEMU 10.0's microvm, ROUNDS times (default 9) in turn with the
balloon on PCI (MSI-X), on virtio-mmio of version 2 and of version 1. Prints for each how fast the driver inflates and
deflates: the median with minimum and maximum, and its share of PCI's median. A second table counts instructions in place of
time, which does not depend on the host's load.
END
}

case ${1-} in -h | --help) usage; exit ;; esac
rounds=${1:-9}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "mmio-rate.sh: ROUNDS=$rounds: not a number; see scripts/mmio-rate.sh --help" >&2; exit 2; }
kernel=${2-}
if [[ -z $kernel ]]; then
  (cd "$root" && cargo build --release --bin ballonet)
  kernel=${CARGO_TARGET_DIR:-$root/target}/release/ballonet
fi
[[ -f $kernel ]] || { echo "mmio-rate.sh: there is no kernel $kernel; see scripts/mmio-rate.sh --help" >&2; exit 2; }
qemu=$("$root/scripts/qemu.sh" 10.0)
output=$(mktemp)
trap 'rm -f "$output"' EXIT

declare -A device=(
  [PCI]='-machine microvm,pcie=on -device virtio-balloon-pci'
  [mmio]='-machine microvm -global virtio-mmio.force-legacy=off -device virtio-balloon-device'
  [legacy]='-machine microvm -global virtio-mmio.force-legacy=on -device virtio-balloon-device'
)

# Prints `TRANSPORT WAY RATE` for both ways; the rest are words for QEMU.
run() {
  local transport=$1 status=0
  # shellcheck disable=SC2086 # several words
  timeout 300 "$qemu" -accel tcg "${@:2}" -cpu max,x2apic=off ${device[$transport]} -m 1G -display none -nic none \
    -serial stdio -monitor none -device isa-debug-exit,iobase=0xf4,iosize=4 -append 'mode=bench log=json' \
    -kernel "$kernel" </dev/null >"$output" || status=$?
  [[ $status -eq 33 ]] || { echo "mmio-rate.sh: QEMU ended with status $status" >&2; tail -n 5 "$output" >&2; exit 1; }
  sed -n "s/.*\"name\":\"driver\.\([a-z]*\)\",\"value\":\([0-9.]*\).*/$transport \1 \2/p" "$output"
}

# Reads such lines and prints a table.
table() {
  sort -k1,1 -k2,2 -k3,3n | awk -v unit="$1" '
    { key = $1 " " $2; value[key, ++count[key]] = $3 }
    function median(key) { n = count[key]; return (value[key, int((n + 1) / 2)] + value[key, int(n / 2) + 1]) / 2 }
    END {
      printf "%-8s %-8s %10s %20s %10s\n", "", unit, "median", "least to most", "of PCI"
      for (w = split("inflate deflate", ways); w > 0; w--) for (t = 1; t <= split("PCI mmio legacy", names); t++) {
        key = names[t] " " ways[w]
        printf "%-8s %-8s %10.3f %9.3f to %8.3f %9.1f%%\n", ways[w], names[t], median(key), value[key, 1],
          value[key, count[key]], 100 * median(key) / median("PCI " ways[w])
      }
    }'
}

for ((round = 0; round < rounds; round++)); do
  for transport in PCI mmio legacy; do run "$transport"; done
done | table 'GiB/s'
for transport in PCI mmio legacy; do run "$transport" -icount shift=0,sleep=off; done | table 'GiB/Ginstr'
