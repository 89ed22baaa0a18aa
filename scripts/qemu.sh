#!/usr/bin/env bash
# Finds a QEMU of the requested version, fetches it where that is possible, and prints the path of its program. Only
# that path goes to standard output.
set -euo pipefail

readonly UNAVAILABLE=3
program=qemu-system-x86_64
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"

usage() {
  cat <<END
Usage: scripts/qemu.sh system | 7.2 | 10.0 | VERSION

Prints the path of a qemu-system-x86_64:
  system    the one on PATH; if there is none, Debian's or Ubuntu's package is installed first
            (as root, or through sudo)
  VERSION   the one on PATH if it has that version; otherwise, 10.0 on Debian 12 is unpacked from
            backports into .cache/qemu10, without installing it

Environment:
  QEMU_7_2, QEMU_10_0   path of a QEMU to use for that version, unchecked

Exit status: 0 found; $UNAVAILABLE this version is not available on this system; 127 there is no QEMU and it
could not be installed; 1 any other failure.
END
}

say() { printf 'qemu.sh: %s\n' "$*" >&2; }

fail() {
  say "$1"
  exit "${2:-1}"
}

# Prints the command that installs QEMU here, for the user to type.
install_command() {
  if [[ $(uname -s) == Darwin ]]; then
    echo 'brew install qemu'
    return
  fi
  local id
  for id in $(os_release ID) $(os_release ID_LIKE); do
    case $id in
      debian | ubuntu) echo 'sudo apt-get update && sudo apt-get install --no-install-recommends qemu-system-x86' ;;
      fedora | rhel | centos) echo 'sudo dnf install qemu-system-x86-core || sudo dnf install qemu-kvm-core' ;;
      arch) echo 'sudo pacman -S qemu-system-x86' ;;
      opensuse* | suse | sles) echo 'sudo zypper install qemu-x86' ;;
      alpine) echo 'sudo apk add qemu-system-x86_64' ;;
      gentoo) echo 'sudo QEMU_SOFTMMU_TARGETS=x86_64 emerge --ask app-emulation/qemu' ;;
      nixos) echo 'nix-shell -p qemu' ;;
      void) echo 'sudo xbps-install qemu-system-amd64' ;;
      *) continue ;;
    esac
    return
  done
  if command -v nix-shell >/dev/null; then
    echo 'nix-shell -p qemu'
  else
    echo "your system's package manager, from the package that has $program"
  fi
}

# Prints the path of the QEMU on PATH; installs one first if there is none.
system_qemu() {
  if ! command -v "$program" >/dev/null; then
    if command -v apt-get >/dev/null && may_be_root; then
      say "$program is missing; installing the package qemu-system-x86"
      apt_install qemu-system-x86 || true
      hash -r
    fi
    command -v "$program" >/dev/null || fail "$program is missing. Install it with: $(install_command)" 127
  fi
  command -v "$program"
}

# "10.0" for a QEMU 10.0.2; empty if the program does not run.
version_of() {
  "$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\.[0-9]*\).*/\1/p'
}

# Unpacks QEMU 10 from Debian 12's backports, with the libraries that this system lacks, and prints the path of its
# launcher.
backports_qemu() {
  local dir=$root/.cache/qemu10
  local launcher=$dir/$program
  mkdir -p "$dir"
  # Two callers may run this at once: one fetches, the other waits.
  exec 9>"$dir/lock"
  flock 9
  if [[ ! -x $launcher ]]; then
    say "fetching QEMU 10 from $(os_release VERSION_CODENAME)-backports into $dir"
    if ! try_thrice fetch_backports "$dir" >"$dir/log" 2>&1; then
      tail -n 20 "$dir/log" >&2
      fail 'QEMU 10 could not be fetched'
    fi
    write_launcher "$dir" "$launcher"
  fi
  "$launcher" --version >/dev/null || fail "$launcher does not run; remove $dir and try again"
  echo "$launcher"
}

# `set -e` is off here, since this is called in a condition: each step that matters says `|| return`.
fetch_backports() {
  local dir=$1 apt=$1/apt codename mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  codename=$(os_release VERSION_CODENAME)
  rm -rf "$apt" "$dir/root"
  mkdir -p "$apt" || return
  have_apt_lists
  # Use the mirror from which this system already takes its packages.
  mirror=$(mirror_of "$codename")
  [[ -n $mirror ]] || { echo "apt has no source of $codename"; return 1; }
  printf "deb [signed-by=$keyring] %s main\n" "$mirror $codename" "$mirror $codename-backports" >"$apt/sources.list"
  apt_with_own_sources "$apt" update || return
  # A dry installation downloads exactly what this system lacks, libraries included. It includes QEMU's modules:
  # without them this QEMU would find the system's, and report each as incompatible at every start.
  apt_with_own_sources "$apt" install -y --download-only --no-install-recommends -t "$codename-backports" \
    qemu-system-x86 qemu-system-common qemu-system-data qemu-system-modules-opengl qemu-system-modules-spice \
    seabios || return
  unpack_downloaded "$apt" "$dir/root" || return
  rm -rf "$apt"
  [[ -x $dir/root/usr/bin/$program ]]
}

write_launcher() {
  local root=$1/root launcher=$2
  cat >"$launcher.new" <<END
#!/bin/sh
export LD_LIBRARY_PATH='$root/usr/lib/x86_64-linux-gnu'
export QEMU_MODULE_DIR='$root/usr/lib/x86_64-linux-gnu/qemu'
exec '$root/usr/bin/$program' -L '$root/usr/share/seabios' -L '$root/usr/share/qemu' "\$@"
END
  chmod +x "$launcher.new"
  mv "$launcher.new" "$launcher"
}

main() {
  local wanted=${1-} named
  case $wanted in
    -h | --help) usage; return ;;
    system) system_qemu; return ;;
    [0-9]*.[0-9]*) ;;
    *) usage >&2; fail "there is no version \`$wanted\`" ;;
  esac
  named=QEMU_${wanted//./_}
  if [[ -n ${!named-} ]]; then
    echo "${!named}"
    return
  fi
  local system
  system=$(system_qemu)
  if [[ $(version_of "$system") == "$wanted" ]]; then
    echo "$system"
  elif [[ $wanted == 10.0 && $(os_release ID) == debian && $(os_release VERSION_ID) == 12 ]]; then
    backports_qemu
  else
    fail "QEMU $wanted is not available here; the system has $(version_of "$system")" "$UNAVAILABLE"
  fi
}

main "$@"
