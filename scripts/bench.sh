#!/usr/bin/env bash
# Boots a kernel with mode=bench in a QEMU 10.0 whose clock counts instructions, and prints the cost of a request. The
# counts depend on the kernel alone: pass two or more kernels to compare them side by side.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<END
Usage: scripts/bench.sh [KERNEL...]

Default KERNEL: the release build of this project. Prints, for each queue format, shape of a request and kind of
notification suppression, the number of instructions of
  add_kick        adding a request, publishing it and kicking the device (median)
  interrupt_pop   from the interrupt's arrival until the request is popped (median)
  round_trip      both, and the time that the CPU waited for the device (minimum)

Environment:
  BALLOON   more properties of the device, such as 'vectors=2,in_order=on' (default vectors=6)
  OPTIONS   more words on the kernel's command line, such as 'irq=intx'
  ICOUNT=0  real cycles instead of instructions: they differ from run to run
END
}

run() {
  local kernel=$1 status=0
  local -a counting=(-icount 'shift=0,sleep=off')
  [[ ${ICOUNT-1} != 0 ]] || counting=()
  # This QEMU aborts when x2APIC registers are read while it counts instructions.
  timeout 300 "$qemu" -accel tcg "${counting[@]}" -cpu max,x2apic=off -machine q35 -m 256M -display none -nic none \
    -serial stdio -monitor none -device isa-debug-exit,iobase=0xf4,iosize=4 \
    -device "virtio-balloon-pci,packed=on,${BALLOON-vectors=6}" \
    -append "mode=bench log=json ${OPTIONS-}" -kernel "$kernel" </dev/null >"$output" || status=$?
  if [[ $status -ne 33 ]]; then
    printf 'bench.sh: %s ended with status %s:\n' "$kernel" "$status" >&2
    tail -n 5 "$output" >&2
    exit 1
  fi
  # The device's time depends on the host's load; its minimum depends on it least.
  sed -n -e 's/.*"event":"bench".*"name":"\([a-z_.]*\.round_trip\)\.min","value":\([0-9]*\).*/\1 \2/p' \
    -e 's/.*"event":"bench".*"name":"\([a-z_.]*\(kick\|pop\)\)\.median","value":\([0-9]*\).*/\1 \3/p' "$output"
}

case ${1-} in
  -h | --help) usage; exit ;;
  -*) echo "bench.sh: there is no option $1; see scripts/bench.sh --help" >&2; exit 2 ;;
esac
for kernel in "$@"; do
  [[ -f $kernel ]] || { echo "bench.sh: there is no kernel $kernel; see scripts/bench.sh --help" >&2; exit 2; }
done
if [[ $# -eq 0 ]]; then
  (cd "$root" && cargo build --release --bin ballonet)
  set -- "${CARGO_TARGET_DIR:-$root/target}/release/ballonet"
fi
qemu=$("$root/scripts/qemu.sh" 10.0)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
output=$folder/output

columns=()
for kernel in "$@"; do
  columns+=("$folder/${#columns[@]}")
  run "$kernel" >"${columns[-1]}"
done
# One line per case: the figures of each phase, the kernels side by side.
awk '
  { match($1, /[^.]*$/); leg = substr($1, RSTART); name = substr($1, 1, RSTART - 2)
    if (!(name in seen)) { seen[name] = 1; names[++count] = name }
    figures[name, leg] = figures[name, leg] sprintf("%7d", $2) }
  END {
    width = 7 * kernels
    if (width < 14) width = 14
    format = "%-44s%" width "s%" width "s%" width "s\n"
    printf format, "", "add_kick", "interrupt_pop", "round_trip"
    for (i = 1; i <= count; i++)
      printf format, names[i], figures[names[i], "add_kick"], figures[names[i], "interrupt_pop"], figures[names[i], "round_trip"]
  }' kernels="$#" "${columns[@]}"
