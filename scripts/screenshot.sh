#!/usr/bin/env bash
# Takes the screenshot of the kernel that the README shows. See `scripts/screenshot.sh --help`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Longest wait for one line of the log, in seconds. QEMU interprets everything, GRUB included.
readonly PATIENCE=120

usage() {
  cat <<'END'
Usage: scripts/screenshot.sh [--kernel KERNEL] [--output FILE]

Boots the image of `./run.sh image` in QEMU, starts a program that uses memory, inflates the balloon, and
writes the screen as a PNG.

  --kernel KERNEL  the kernel (default: the release build)
  --output FILE    the picture (default: docs/screen.png)

Environment:
  QEMU   the QEMU to use (default: the one that `scripts/qemu.sh system` finds); it must be 7.1 or later

Exit status: 0 written; 3 a program that makes the image is missing; 2 an invalid option; 1 any other failure.
END
}

fail() {
  printf 'screenshot.sh: %s\n' "$1" >&2
  exit "${2:-1}"
}

kernel=() output=$root/docs/screen.png
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit ;;
    --kernel | --output)
      [[ $# -ge 2 ]] || fail "$1 needs a value" 2
      if [[ $1 == --kernel ]]; then kernel=(--kernel "$2"); else output=$(realpath "$2"); fi
      shift
      ;;
    *) fail "unknown argument $1; see scripts/screenshot.sh --help" 2 ;;
  esac
  shift
done

folder=$(mktemp -d)
qemu=${QEMU:-$("$root/scripts/qemu.sh" system)}
cat >"$folder/menu" <<'END'
insmod all_video
multiboot2 /boot/ballonet log=text
set gfxpayload=640x480x32
boot
END
"$root/scripts/image.sh" "${kernel[@]}" --menu "$folder/menu" --output "$folder/image" >/dev/null
mkfifo "$folder/console.in" "$folder/console.out"
# Both ends are open: QEMU blocks at its start while a reader or a writer is missing.
exec 4<>"$folder/console.in" 5<>"$folder/console.out"
coproc MONITOR { exec timeout 300 "$qemu" -accel tcg -cpu max -machine q35 -m 512M -display none -nic none -monitor stdio \
  -serial "pipe:$folder/console" -drive "file=$folder/image,format=raw" \
  -device virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on 2>&1; }
monitor=$MONITOR_PID
trap 'kill "$monitor" 2>/dev/null || true; rm -rf "$folder"' EXIT

# Waits for a line on the serial port that contains $1.
await() {
  local line
  while IFS= read -r -t "$PATIENCE" -u 5 line; do
    [[ $line != *"$1"* ]] || return 0
  done
  fail "the kernel did not say: $1"
}

# Types line $1 at QEMU's monitor.
ask() { printf '%s\n' "$1" >&"${MONITOR[1]}"; }

# Types line $1 at the kernel's console, at the serial port.
type_line() { printf '%s\n' "$1" >&4; }

await 'lists the console'
type_line 'work steady:96M'
await 'steady is full'
ask 'balloon 300'
await 'inflating balloon by 212 of 212 MiB 100 %'
# The screen is redrawn ten times a second; free page reports wait for a quarter of a second.
sleep 2
rm -f "$output"
ask "screendump $output -f png"
ask quit
wait "$monitor" || fail 'QEMU failed'
[[ -s $output ]] || fail 'QEMU wrote no picture; it must be 7.1 or later'
echo "$output"
