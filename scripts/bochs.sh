#!/usr/bin/env bash
# Starts the image in Bochs, a PC emulator other than QEMU. See `scripts/bochs.sh --help`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"

readonly UNAVAILABLE=3
# Longest wait for one CPU, in seconds. Bochs interprets everything, GRUB included.
readonly PATIENCE=${BOCHS_PATIENCE:-400}
# The CPUs: the first with 64-bit mode, a late one, and one without. Then the kernel's lines that end the wait.
readonly CPUS=(athlon64_clawhammer corei7_skylake_x p3_katmai)
readonly SERVES='no virtio balloon was found on PCI'
readonly REFUSES='ballonet cannot run on this CPU: it has no 64-bit mode'

usage() {
  cat <<END
Usage: scripts/bochs.sh [--kernel KERNEL] [CPU...]

Puts the kernel into an image as \`./run.sh image\` does, and starts the image in Bochs on each CPU (default: ${CPUS[*]}).
The kernel must reach its console or, if the CPU has no 64-bit mode, say so.

  --kernel KERNEL  the kernel (target/debug/ballonet)

Exit status: 0 success; $UNAVAILABLE Bochs, or a program that makes the image, is not available here; 1 failure.
END
}

say() { printf 'bochs.sh: %s\n' "$*" >&2; }

fail() {
  say "$1"
  exit "${2:-1}"
}

kernel=${CARGO_TARGET_DIR:-$root/target}/debug/ballonet cpus=()
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit ;;
    --kernel)
      [[ $# -ge 2 ]] || fail "$1 needs a value" 2
      kernel=$2
      shift
      ;;
    -*) fail "unknown argument $1; see scripts/bochs.sh --help" 2 ;;
    *) cpus+=("$1") ;;
  esac
  shift
done
[[ ${#cpus[@]} -gt 0 ]] || cpus=("${CPUS[@]}")
[[ -r $kernel ]] || fail "there is no $kernel"

# Finds Bochs and its firmware; installs missing packages if this user may.
find_bochs() {
  local file missing=()
  # The package depends on one of several display plugins; this is the smallest.
  command -v bochs >/dev/null || missing+=(bochs bochs-term)
  [[ -r /usr/share/bochs/BIOS-bochs-latest ]] || missing+=(bochsbios)
  # In Debian this file links to a package that bochs only recommends.
  [[ -r /usr/share/bochs/VGABIOS-lgpl-latest ]] || missing+=(vgabios)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if command -v apt-get >/dev/null && may_be_root; then
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" || true
  fi
  command -v bochs >/dev/null || fail 'missing; install: bochs bochs-term bochsbios vgabios' "$UNAVAILABLE"
  for file in BIOS-bochs-latest VGABIOS-lgpl-latest; do
    [[ -r /usr/share/bochs/$file ]] || fail "there is no /usr/share/bochs/$file" "$UNAVAILABLE"
  done
}

# GRUB finds only 8-bit pixel modes in Bochs, and GRUB 2.06 crashes in those: so use text. Skip the menu's delay.
menu() {
  cat <<'END'
set timeout=0
menuentry ballonet {
  multiboot2 /boot/ballonet verbose=on
  set gfxpayload=text
}
END
}

# The configuration with CPU $1. The screen is a VNC display that nobody watches.
configuration() {
  cat <<END
config_interface: textconfig
display_library: rfb, options="timeout=0"
memory: guest=128, host=128
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=$1, count=1, ips=4000000, reset_on_triple_fault=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path="$folder/ballonet.img", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="$folder/$1.serial"
clock: sync=none
speaker: enabled=0
sound: waveoutdrv=dummy
log: "$folder/$1.log"
panic: action=fatal
END
}

# Starts Bochs with CPU $1 and waits for the kernel's line.
start() {
  local cpu=$1 expected=$SERVES bochs status=1 end=$((SECONDS + PATIENCE))
  case $cpu in
    p[23]_* | pentium* | amd_k6* | core_duo* | atom_n270) expected=$REFUSES ;;
  esac
  configuration "$cpu" >"$folder/$cpu.rc"
  # Debian's Bochs has a debugger, which waits for a command at the start.
  echo continue >"$folder/$cpu.go"
  bochs -q -f "$folder/$cpu.rc" -rc "$folder/$cpu.go" >"$folder/$cpu.output" 2>&1 </dev/null &
  bochs=$!
  until has_said "$cpu" "$expected" && status=0; do
    if ! kill -0 "$bochs" 2>/dev/null; then
      say "$cpu: Bochs ended without the line: $expected"
      break
    fi
    ((SECONDS < end)) || { say "$cpu: no such line after $PATIENCE s: $expected"; break; }
    sleep 0.5
  done
  kill "$bochs" 2>/dev/null || true
  wait "$bochs" 2>/dev/null || true
  if has_said "$cpu" 'FAULT\|PANIC\|warning: '; then
    say "$cpu: the kernel logged a warning or an error"
    status=1
  fi
  if [[ $status -ne 0 ]]; then
    say "$cpu: the end of the serial log and of Bochs's log:"
    tail -n 30 "$folder/$cpu.serial" >&2 || true
    tail -n 40 "$folder/$cpu.log" >&2 || true
    return 1
  fi
  say "$cpu: $expected"
}

has_said() { grep -aq "$2" "$folder/$1.serial" 2>/dev/null; }

find_bochs
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
menu >"$folder/grub.cfg"
status=0
"$root/scripts/image.sh" --kernel "$kernel" --menu "$folder/grub.cfg" --output "$folder/ballonet.img" >/dev/null || status=$?
[[ $status -eq 0 ]] || exit "$status"
runs=()
for cpu in "${cpus[@]}"; do
  start "$cpu" &
  runs+=($!)
done
for run in "${runs[@]}"; do
  wait "$run" || status=1
done
exit "$status"
