#!/usr/bin/env bash
# Usage: scripts/ovmf.sh
#
# Prints the paths of OVMF (UEFI firmware for QEMU), one per line: its code, then its variables. Installs Debian's
# package if OVMF is missing.
#
# Exit status: 0 found; 3 OVMF is not available here.
set -euo pipefail

case ${1-} in
  '') ;;
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
  *) echo "ovmf.sh: unknown argument $1; see scripts/ovmf.sh --help" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"

# Where distributions put the firmware without Secure Boot; the variables' file name follows from the code's.
find_ovmf() {
  local code
  for code in /usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/edk2/x64/OVMF_CODE.4m.fd /usr/share/edk2/ovmf/OVMF_CODE.fd \
    /usr/share/OVMF/OVMF_CODE.fd; do
    if [[ -r $code && -r ${code/CODE/VARS} ]]; then
      printf '%s\n' "$code" "${code/CODE/VARS}"
      return
    fi
  done
  return 1
}

find_ovmf && exit
# Tests run this in parallel: one installs, the others wait.
mkdir -p "$root/.cache"
exec 9>"$root/.cache/ovmf.lock"
flock 9
find_ovmf && exit
if command -v apt-get >/dev/null; then
  echo 'ovmf.sh: UEFI firmware is missing; installing the package ovmf' >&2
  apt_install ovmf || true
  find_ovmf && exit
fi
echo 'ovmf.sh: there is no UEFI firmware for QEMU here; it is in the package ovmf' >&2
exit 3
