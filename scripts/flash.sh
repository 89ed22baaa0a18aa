#!/usr/bin/env bash
# Writes the image to a USB stick. See `./run.sh flash --help`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'END'
Usage: ./run.sh flash [--image FILE] DEVICE

Writes the image for USB sticks to DEVICE, for example /dev/sdb. DEVICE must be a whole removable disk, with no part
mounted or in use. The script shows the disk and asks for its name again; EVERYTHING ON IT IS LOST. Then it reads the
image back and compares. Without --image it makes the image first (./run.sh image).

Without DEVICE it lists the disks that it can write to.
END
}

say() { printf 'flash.sh: %s\n' "$*" >&2; }

refuse() {
  say "$1"
  exit "${2:-2}"
}

# A property of a device, by lsblk; empty if the device does not have it.
property() { lsblk --nodeps --noheadings --raw --output "$2" "$1" 2>/dev/null | head -n 1; }

# A readable name: lsblk escapes special characters.
described() { printf '%b' "$(property "$1" "$2")"; }

# Prints why a device must not be written to; prints nothing if it may be.
objection() {
  local device=$1 used
  [[ -n $(property "$device" NAME) ]] || { echo "$device: not a block device"; return; }
  [[ $(property "$device" TYPE) == disk ]] || { echo "$device: a $(property "$device" TYPE), not a whole disk"; return; }
  [[ $(property "$device" RM) == 1 ]] || { echo "$device: not removable"; return; }
  [[ $(property "$device" RO) == 0 ]] || { echo "$device: write-protected"; return; }
  # Its partitions and the volumes on them.
  used=$(lsblk --noheadings --raw --output MOUNTPOINTS "$device" | grep -m 1 . || true)
  [[ -z $used ]] || { echo "$device: mounted at $(printf '%b' "$used" | tr '\n' ' ')"; return; }
  [[ $(lsblk --noheadings --raw --output TYPE "$device" | grep -cvxE 'disk|part') -eq 0 ]] ||
    echo "$device: in use by $(lsblk --noheadings --raw --output NAME,TYPE "$device" | grep -vE ' (disk|part)$' | xargs)"
}

describe() {
  local device=$1
  echo "$device: $(described "$device" VENDOR) $(described "$device" MODEL), $(property "$device" SIZE)," \
    "serial number $(described "$device" SERIAL)"
}

# Lists the disks that this script can write to.
candidates() {
  local device found=''
  while read -r device; do
    [[ -z $(objection "$device") ]] || continue
    describe "$device"
    found=1
  done < <(lsblk --nodeps --noheadings --raw --paths --output NAME)
  [[ -n $found ]] || say 'no removable disk is free'
}

# Reads the first $2 bytes of a device, bypassing the page cache where possible.
read_back() {
  local how=direct
  dd if="$1" iflag=direct of=/dev/null bs=1M count=1 status=none 2>/dev/null || how=fullblock
  # dd reads whole blocks; head closes the pipe before the end of the last one.
  { dd if="$1" iflag="$how" bs=1M count=$((($2 + 1048575) / 1048576)) status=none || true; } | head -c "$2"
}

# Writes and reads back.
write_image() {
  local image=$1 device=$2 size
  size=$(stat -c %s "$image")
  dd if="$image" of="$device" bs=1M conv=fsync,notrunc status=none || refuse "$device: writing failed" 1
  blockdev --flushbufs "$device" 2>/dev/null || true
  read_back "$device" "$size" | cmp -s - "$image" || refuse "$device: the data read back differs from the image" 1
  say "$device: written, and read back: $size bytes"
}

image=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit ;;
    --image)
      [[ $# -ge 2 ]] || refuse "$1 needs a value"
      image=$2
      shift
      ;;
    -*) refuse "unknown option $1; see ./run.sh flash --help" ;;
    *) break ;;
  esac
  shift
done
command -v lsblk >/dev/null || refuse 'lsblk is missing; it is in the package util-linux'
if [[ $# -eq 0 ]]; then
  candidates
  exit
fi
[[ $# -eq 1 ]] || refuse "one device at a time, not $*"
device=$1
why=$(objection "$device")
[[ -z $why ]] || refuse "$why"
[[ -n $image ]] || image=$("$root/scripts/image.sh")
[[ -r $image ]] || refuse "$image: no such image"
[[ $(lsblk --nodeps --noheadings --raw --bytes --output SIZE "$device") -ge $(stat -c %s "$image") ]] || refuse "$device: smaller than the image"
describe "$device" >&2
printf 'EVERYTHING ON IT WILL BE LOST. To go on, type its name once more: ' >&2
read -r answer || answer=''
[[ $answer == "$device" ]] || refuse "\`$answer\` is not $device: nothing was written" 1
# The disk may have been mounted during the wait.
why=$(objection "$device")
[[ -z $why ]] || refuse "$why"
write_image "$image" "$device"
