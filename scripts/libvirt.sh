#!/usr/bin/env bash
# Runs the domains of deploy/ under a libvirt daemon of its own. See `scripts/libvirt.sh --help`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"

readonly UNAVAILABLE=3
# The longest wait for anything, in seconds.
readonly PATIENCE=60

usage() {
  cat <<END
Usage: scripts/libvirt.sh [--kernel KERNEL] [--image IMAGE] [--watch PROGRAM]

Uses virsh to define, start, balloon, shut down and destroy the domains of deploy/, and compares libvirt's figures with
the requested ones. It starts an unprivileged daemon of its own, whose home is a temporary folder and which ends
with the script; other daemons are not affected. QEMU runs without KVM.

  --kernel KERNEL  the kernel (target/debug/ballonet)
  --image IMAGE    an image from \`./run.sh image\`; without it, the domain that boots it is only validated against
                   libvirt's schema
  --watch PROGRAM  a ballonet-watch, which must find the domain through libvirt and keep it in a budget

Exit status: 0 success; $UNAVAILABLE libvirt is not available here; 1 failure.
END
}

say() { printf 'libvirt.sh: %s\n' "$*" >&2; }

fail() {
  say "$1"
  exit "${2:-1}"
}

kernel=${CARGO_TARGET_DIR:-$root/target}/debug/ballonet image='' watch=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit ;;
    --kernel | --image | --watch)
      [[ $# -ge 2 ]] || fail "$1 needs a value" 2
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) fail "unknown argument $1; see scripts/libvirt.sh --help" 2 ;;
  esac
  shift
done
for file in "$kernel" ${image:+"$image"} ${watch:+"$watch"}; do
  [[ -r $file ]] || fail "there is no $file"
done

# Finds libvirt and its driver for QEMU; installs missing packages if this user may.
find_tools() {
  PATH=$PATH:/usr/sbin:/sbin
  have_programs 'libvirtd=libvirt-daemon libvirt-daemon-driver-qemu' virsh=libvirt-clients \
    qemu-system-x86_64=qemu-system-x86 setpriv=util-linux || exit "$UNAVAILABLE"
}

# Sets `user`, the prefix that runs a command as the daemon's user: this user, or nobody if this is root, since root's
# daemon would be the system's. Clients start no daemon of their own; it would outlive this script.
become_user() {
  user=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C LIBVIRT_AUTOSTART=0 HOME="$home"
    XDG_RUNTIME_DIR="$home/run" XDG_CONFIG_HOME="$home/config" XDG_CACHE_HOME="$home/cache" XDG_DATA_HOME="$home/data")
  [[ $EUID -ne 0 ]] || user=(setpriv --reuid=65534 --regid=65534 --clear-groups "${user[@]}")
}

virsh() { "${user[@]}" timeout "$PATIENCE" virsh -q -c qemu:///session "$@"; }

# Waits until command $2... succeeds; $1 names what it waits for.
await() {
  local what=$1 end=$((SECONDS + PATIENCE))
  shift
  until "$@"; do
    ((SECONDS < end)) || { say "waited $PATIENCE s for $what; it did not happen"; return 1; }
    sleep 0.2
  done
}

start_daemon() {
  mkdir -p "$home"/{run,config/libvirt,cache,data}
  # Without a log daemon, which would outlive this script.
  echo 'stdio_handler = "file"' >"$home/config/libvirt/qemu.conf"
  cp "$kernel" "$home/ballonet"
  [[ -z $image ]] || cp "$image" "$home/ballonet.img"
  [[ -z $watch ]] || cp "$watch" "$home/ballonet-watch"
  chmod -R u=rwX,go=rX "$home"
  [[ $EUID -ne 0 ]] || chown -R 65534:65534 "$home"
  "${user[@]}" libvirtd --pid-file "$home/libvirtd.pid" >"$home/libvirtd.log" 2>&1 &
  daemon=$!
  answers() { virsh version >"$home/virsh.log" 2>&1; }
  await 'the daemon' answers
}

# Ends only what this script started: the domains through the daemon, the daemon by its process ID.
clean_up() {
  local status=$? domain
  trap - EXIT
  if [[ -n ${daemon-} ]]; then
    for domain in ballonet ballonet-image; do virsh destroy "$domain" >/dev/null 2>&1 || true; done
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  if [[ $status -ne 0 && $status -ne $UNAVAILABLE ]]; then
    for log in "$home"/{virsh,libvirtd}.log "$home"/*.serial "$home"/cache/libvirt/qemu/log/*.log; do
      [[ ! -s $log ]] || { say "the end of ${log##*/}:"; tail -n 15 "$log" >&2; }
    done
  fi
  rm -rf "$home"
  exit "$status"
}

# Prints domain file $1, adapted to this run: no KVM, files from this folder, and the serial line logged.
adapted() {
  sed -e "s|type='kvm'|type='qemu'|" -e "s|/var/lib/libvirt/images/|$home/|" \
    -e "s|<target port='0'/>|<log file='$home/$1.serial' append='off'/>&|" "$root/deploy/$1.xml"
}

define() {
  adapted "$1" >"$home/$1.xml"
  chmod a+r "$home/$1.xml"
  virsh define --validate "$home/$1.xml" >/dev/null
}

has_said() { grep -q "$2" "$home/$1.serial" 2>/dev/null; }

# Libvirt's figure $2 of domain $1, in KiB or as a number; empty if libvirt has none.
figure() { virsh dommemstat "$1" | sed -n "s/^$2 //p"; }

has_memory() { [[ $(virsh dominfo "$1" | sed -n 's/^Used memory: *\([0-9]*\) KiB/\1/p') == "$2" ]]; }

has_state() { [[ $(virsh domstate --reason "$1") == "$2" ]]; }

# Sets the memory of domain $1 to $2 KiB and waits until it takes effect.
set_memory() {
  virsh setmem "$1" "$2" --live
  await "$1 to shrink or grow to $2 KiB" has_memory "$1" "$2"
}

# Whether domain $1's guest statistics date from $2 or later (seconds since 1970) and give $3 to $4 KiB unused.
has_statistics() {
  local updated unused available usable
  updated=$(figure "$1" last_update) unused=$(figure "$1" unused)
  available=$(figure "$1" available) usable=$(figure "$1" usable)
  [[ -n $unused && -n $available && -n $usable && -n $updated ]] || return 1
  ((updated >= $2 && unused >= $3 && unused <= $4 && unused <= available && usable <= available))
}

# The balloon follows `setmem` down and up, and the guest's statistics agree.
check_balloon() {
  local domain=$1 whole=$((512 * 1024)) margin=$((32 * 1024)) since
  await 'statistics of the whole' has_statistics "$domain" 1 $((whole - margin)) "$whole"
  set_memory "$domain" $((whole / 2))
  since=$(($(date +%s) + 1))
  await 'statistics of the half' has_statistics "$domain" "$since" $((whole / 2 - margin)) $((whole / 2))
  [[ $(figure "$domain" actual) == $((whole / 2)) ]] || fail "dommemstat has actual $(figure "$domain" actual)"
  virsh dommemstat "$domain" | sed "s/^/$domain at half: /"
  set_memory "$domain" "$whole"
  since=$(($(date +%s) + 1))
  await 'statistics of the whole again' has_statistics "$domain" "$since" $((whole - margin)) "$whole"
}

# ballonet-watch takes libvirt's folder of sockets, which libvirt's daemon holds.
check_watch() {
  local domain=$1 text sockets=$home/config/libvirt/qemu/lib
  [[ -n $watch ]] || return 0
  watch() { "${user[@]}" timeout "$PATIENCE" "$home/ballonet-watch" "$@"; }
  text=$(watch attach "$sockets" --once)
  [[ $text == *"$domain: RSS "[0-9]*" RAM "[0-9]*"leaves 512 of 512 MiB"*'; running' ]] || fail "ballonet-watch printed: $text"
  watch policy "$sockets" --budget 256M --duration 3 >/dev/null
  await "$domain to be within the budget" has_memory "$domain" $((256 * 1024))
  set_memory "$domain" $((512 * 1024))
}

# `shutdown` presses the power button; the guest powers itself off.
check_shutdown() {
  virsh shutdown "$1" --mode acpi
  await "$1 to switch itself off" has_state "$1" 'shut off (shutdown)'
  has_said "$1" 'the power button was pressed' || fail "$1 did not notice the power button"
}

check_domain() {
  local domain=$1 start=$SECONDS
  define "$domain"
  virsh start "$domain"
  await "$domain to be ready" has_said "$domain" 'balloon at .* ready'
  check_balloon "$domain"
  check_watch "$domain"
  check_shutdown "$domain"
  virsh start "$domain"
  await "$domain to be ready again" has_said "$domain" 'balloon at .* ready'
  virsh destroy "$domain"
  await "$domain to be gone" has_state "$domain" 'shut off (destroyed)'
  virsh undefine "$domain"
  echo "$domain: setmem, dommemstat${watch:+, ballonet-watch}, shutdown and destroy work ($((SECONDS - start)) s)"
}

find_tools
home=$(mktemp -d /tmp/ballonet-libvirt.XXXXXX)
trap clean_up EXIT
become_user
start_daemon
virsh version --daemon | sed -n 's/^Running /running /p'
check_domain ballonet
if [[ -n $image ]]; then
  check_domain ballonet-image
else
  define ballonet-image
  virsh undefine ballonet-image
  echo 'ballonet-image: valid by the schema; not started, for lack of an image'
fi
