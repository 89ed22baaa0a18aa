#!/usr/bin/env bash
# Usage: scripts/linux-guest.sh
#
# Makes a Linux guest for comparison, once, in .cache/linux: Debian's kernel, and an initramfs that loads
# virtio_balloon. For each line typed at the console, the guest prints the balloon's interrupt count: `interrupts N`.
# Prints the path of the kernel and, on a second line, that of the initramfs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"
dir=$root/.cache/linux

# Ordered by dependency.
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_balloon)

case ${1-} in
  '') ;;
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
  *) echo "linux-guest.sh: unknown argument $1; see scripts/linux-guest.sh --help" >&2; exit 2 ;;
esac

say() { printf 'linux-guest.sh: %s\n' "$*" >&2; }

# Only these packages, without their dependencies: the kernel is not installed, and busybox is static.
fetch() {
  local image
  have_apt_lists || return
  image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  [[ -n $image ]] || { say 'apt knows no linux-image-amd64'; return 1; }
  rm -rf "$dir/debs" "$dir/root"
  mkdir -p "$dir/debs" "$dir/root" || return
  (cd "$dir/debs" && apt-get -qq -oAPT::Sandbox::User="$(id -un)" download "$image" busybox-static >&2) || return
  for deb in "$dir"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/root" || return; done
  rm -rf "$dir/debs"
}

# Packs the files of folder $1 into an archive that Linux unpacks at boot.
pack() {
  (cd "$1" && find . -mindepth 1 -printf '%P\n' | sort | "$dir/root/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1)
}

build() {
  local tree=$dir/tree module file
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,lib,proc,sys,dev}
  cp "$dir/root/bin/busybox" "$tree/bin/"
  for module in "${modules[@]}"; do
    file=$(find "$dir/root/lib/modules" -name "$module.ko*" | head -n 1)
    case $file in
      *.ko) cp "$file" "$tree/lib/" ;;
      *.ko.xz) "$dir/root/bin/busybox" xzcat "$file" >"$tree/lib/$module.ko" ;;
      *) say "the kernel has no module $module" && return 1 ;;
    esac
  done
  {
    echo '#!/bin/busybox sh'
    printf '/bin/busybox insmod /lib/%s.ko\n' "${modules[@]}"
    cat <<'END'
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
while true; do
  if read -r line; then
    /bin/busybox awk '/virtio/ { sum += $2 } END { print "interrupts", sum + 0 }' /proc/interrupts
  else
    /bin/busybox sleep 1
  fi
done
END
  } >"$tree/init"
  chmod +x "$tree/init"
  pack "$tree" >"$dir/initramfs.new"
  rm -rf "$tree"
  mv "$dir/initramfs.new" "$dir/initramfs"
}

mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
if [[ ! $dir/initramfs -nt ${BASH_SOURCE[0]} ]]; then
  say "making a Linux guest in $dir"
  [[ -f $dir/initramfs ]] || try_thrice fetch
  build
fi
echo "$dir"/root/boot/vmlinuz-*
echo "$dir/initramfs"
