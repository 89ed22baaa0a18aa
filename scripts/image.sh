#!/usr/bin/env bash
# Makes the image for a USB stick or a CD. See `./run.sh image --help`. Only the image's path goes to standard output.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"

# The largest image, in bytes.
readonly LARGEST=$((8 * 1024 * 1024))

usage() {
  cat <<'END'
Usage: ./run.sh image [--output FILE] [--kernel KERNEL] [--menu FILE]
       ./run.sh image --test

Makes one image that boots from a USB stick, by BIOS or UEFI (64 or 32 bits), and from a CD. It holds GRUB and the
kernel's release build. The menu offers the modes serve, check and bench, and serve with full logging; `e` edits the
kernel's options. Secure Boot must be off.

  --output FILE    the image (target/ballonet.img)
  --kernel KERNEL  the kernel to put into it, instead of the release build; also a bzImage, which GRUB starts by BIOS
                   only
  --menu FILE      a GRUB menu (grub.cfg) instead of the default one; the kernel is /boot/ballonet
  --test           boots it in QEMU: as a USB stick by BIOS and by UEFI, as a CD, and by each entry of the menu

`./run.sh flash DEVICE` writes the image to a stick.

Exit status: 3 if a program that makes the image is not available here.
END
}

say() { printf 'image.sh: %s\n' "$*" >&2; }

refuse() {
  say "$1"
  exit "${2:-2}"
}

output=${CARGO_TARGET_DIR:-$root/target}/ballonet.img
kernel='' menu='' test=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit ;;
    --output | --kernel | --menu)
      [[ $# -ge 2 ]] || refuse "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    --test) test=1 ;;
    *) refuse "unknown argument $1; see ./run.sh image --help" ;;
  esac
  shift
done

if [[ -n $test ]]; then
  # The tests make an image of their own.
  exec cargo test --manifest-path "$root/Cargo.toml" --test qemu -- image::
fi

# The GRUB platforms in every image, whatever else is installed: BIOS, 64-bit UEFI and 32-bit UEFI.
readonly PLATFORMS=(i386-pc x86_64-efi i386-efi)

# The programs needed to make an image, and their packages.
tools() {
  have_programs grub-mkrescue=grub-common /usr/lib/grub/i386-pc/modinfo.sh=grub-pc-bin \
    /usr/lib/grub/x86_64-efi/modinfo.sh=grub-efi-amd64-bin /usr/lib/grub/i386-efi/modinfo.sh=grub-efi-ia32-bin \
    xorriso=xorriso mformat=mtools mcopy=mtools xz=xz-utils strip=binutils ||
    refuse 'an image needs programs that could not be installed' 3
}

menu() {
  cat <<'END'
set timeout=5
set default=0
# Use the serial console if there is a serial port.
if serial --unit=0 --speed=115200; then
  terminal_input --append serial
  terminal_output --append serial
fi
if [ "$grub_platform" = efi ]; then
  insmod efi_gop
else
  insmod vbe
fi

function start {
  COMMAND /boot/ballonet $*
  # This must come after the line above: the kernel's header would override it. Any current video mode is fine.
  set gfxpayload=auto
}

# Digits as menu keys: GRUB uses the letters itself.
if cpuid -l; then
  menuentry '1 ballonet: serve the balloon' --hotkey=1 { start }
  menuentry '2 ballonet: check the device' --hotkey=2 { start mode=check }
  menuentry '3 ballonet: measure the device' --hotkey=3 { start mode=bench }
  menuentry '4 ballonet: serve the balloon, and tell all' --hotkey=4 { start verbose=on }
else
  # No entry starts by itself.
  set timeout=-1
  echo 'This CPU has no 64-bit mode, which ballonet needs.'
  menuentry 'This CPU has no 64-bit mode, which ballonet needs: 0 switches off' --hotkey=0 { halt }
  menuentry '1 Restart' --hotkey=1 { reboot }
fi
END
}

build_kernel() {
  command -v cargo >/dev/null || refuse 'cargo is missing, and no kernel was named (--kernel)'
  cargo build --release --manifest-path "$root/Cargo.toml" --bin ballonet >&2
  kernel=${CARGO_TARGET_DIR:-$root/target}/release/ballonet
}

# Tests run this in parallel: one installs, the others wait.
mkdir -p "$root/.cache"
exec 9>"$root/.cache/image.lock"
flock 9
tools
flock -u 9
[[ -z $menu || -r $menu ]] || refuse "$menu: no such menu"
[[ -n $kernel ]] || build_kernel
[[ -r $kernel ]] || refuse "$kernel: no such kernel"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/image/boot/grub" "$(dirname "$output")"
# A bzImage has "HdrS" there.
if [[ $(tail -c +515 "$kernel" | head -c 4 | tr -d '\0') == HdrS ]]; then
  command=linux
  cp "$kernel" "$folder/image/boot/ballonet"
else
  command=multiboot2
  strip -o "$folder/image/boot/ballonet" "$kernel"
fi
if [[ -n $menu ]]; then cat "$menu"; else menu | sed "s/COMMAND/$command/"; fi >"$folder/image/boot/grub/grub.cfg"
modules="$command"' normal iso9660 fat test echo serial terminal all_video cpuid halt reboot'
# Under UEFI, GRUB loads the module of every partition table type and reports missing ones.
modules+=' part_acorn part_amiga part_apple part_bsd part_dfly part_dvh part_gpt part_msdos part_plan part_sun part_sunpc'
if ! grub-mkrescue --locales= --fonts= --themes= --compress=xz --install-modules="$modules" -o "$folder/ballonet.img" \
  "$folder/image" >"$folder/log" 2>&1; then
  cat "$folder/log" >&2
  refuse 'grub-mkrescue failed' 1
fi
# grub-mkrescue silently omits platforms whose modules are missing.
contents=$(xorriso -indev "$folder/ballonet.img" -report_el_torito plain -find /boot/grub -maxdepth 1 2>/dev/null)
grep -q UEFI <<<"$contents" || refuse 'the image would not start by UEFI: is grub-efi-amd64-bin whole?' 1
for platform in "${PLATFORMS[@]}"; do
  grep -qF "/boot/grub/$platform" <<<"$contents" || refuse "the image lacks GRUB for $platform" 1
done
size=$(stat -c %s "$folder/ballonet.img")
((size <= LARGEST)) || refuse "the image has $size bytes, more than $LARGEST" 1
mv "$folder/ballonet.img" "$output"
say "$size bytes"
echo "$output"
