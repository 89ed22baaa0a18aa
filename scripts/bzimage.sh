#!/usr/bin/env bash
# Makes a bzImage of the kernel. See `./run.sh bzimage --help`. Only its path goes to standard output.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"

usage() {
  cat <<'END'
Usage: ./run.sh bzimage [--output FILE] [--kernel KERNEL]

Makes a bzImage of the kernel's release build, for StratoVirt, kvmtool, GRUB's command `linux`, and every other loader of
Linux that accepts no ELF file. It has entries in real mode, in protected mode and in long mode (boot protocol 2.12), and
moves itself to a multiple of 2 MiB below 4 GiB. It has no EFI stub: for UEFI, use ./run.sh image.

  --output FILE    the bzImage (target/ballonet.bzimage)
  --kernel KERNEL  the kernel to convert, instead of the release build

Exit status: 3 if objcopy is not available here.
END
}

say() { printf 'bzimage.sh: %s\n' "$*" >&2; }

refuse() {
  say "$1"
  exit "${2:-2}"
}

output=${CARGO_TARGET_DIR:-$root/target}/ballonet.bzimage
kernel=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit ;;
    --output | --kernel)
      [[ $# -ge 2 ]] || refuse "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) refuse "unknown argument $1; see ./run.sh bzimage --help" ;;
  esac
  shift
done

have_programs objcopy=binutils || refuse 'a bzImage needs objcopy, which could not be installed' 3
if [[ -z $kernel ]]; then
  command -v cargo >/dev/null || refuse 'cargo is missing, and no kernel was named (--kernel)'
  cargo build --release --manifest-path "$root/Cargo.toml" --bin ballonet >&2
  kernel=${CARGO_TARGET_DIR:-$root/target}/release/ballonet
fi
[[ -r $kernel ]] || refuse "$kernel: no such kernel"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The header is a section that the ELF image does not load. The image's memory follows, zeros and all: no loader makes them.
objcopy -O binary -j .bzimage --set-section-flags .bzimage=alloc,load,contents "$kernel" "$folder/setup" 2>"$folder/log" ||
  refuse "$kernel: $(<"$folder/log")" 1
[[ $(stat -c %s "$folder/setup") == 1024 ]] || refuse "$kernel: has no section .bzimage: not this project's kernel" 1
objcopy -O binary -R .bzimage --set-section-flags .bss=alloc,load,contents "$kernel" "$folder/image"
# The header's init_size.
size=$(od -An -v -tu4 -j $((0x260)) -N 4 "$folder/setup" | tr -d ' ')
found=$(stat -c %s "$folder/image")
((found <= size && size - found < 4096)) || refuse "$kernel: $found bytes of memory, and the header says $size" 1
truncate -s "$size" "$folder/image"

mkdir -p "$(dirname "$output")"
cat "$folder/setup" "$folder/image" >"$folder/bzimage"
mv "$folder/bzimage" "$output"
say "$((size + 1024)) bytes"
echo "$output"
