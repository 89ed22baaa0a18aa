#!/usr/bin/env bash
# Builds the kernel for x86_64-unknown-none and prints the path of its folder. See `scripts/bare-target.sh --help`.
# Only that path goes to standard output.
set -euo pipefail

readonly UNAVAILABLE=3
target=x86_64-unknown-none
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache/bare-target

usage() {
  cat <<END
Usage: scripts/bare-target.sh [CARGO-BUILD-ARGUMENT...]
       scripts/bare-target.sh --library TARGET...

Builds the kernel for $target and prints its folder; with --library, checks that the driver library compiles for each
TARGET, and prints nothing.

With a toolchain that has the target (rustup target add $target) this is a plain cargo build. Otherwise, on
Debian, it unpacks a compiler and the library's sources into .cache/bare-target, installs nothing on the system,
and also builds the library.

Exit status: 0 built; $UNAVAILABLE no such toolchain is available here; any other: a failure.
END
}

# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"

say() { printf 'bare-target.sh: %s\n' "$*" >&2; }

give_up() {
  say "no toolchain with $target; get one with: rustup target add $target"
  exit "$UNAVAILABLE"
}

# Unpacks the compiler once, into .cache; concurrent callers wait.
unpack() {
  local apt=$cache/apt host
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9
  [[ ! -x $cache/rustc ]] || return 0
  have_apt_lists || true
  # Debian packages a compiler newer than its default one, for building browsers, and that library's sources.
  apt-cache show rust-web-src >/dev/null 2>&1 || give_up
  say "fetching a compiler into $cache"
  rm -rf "$apt" "$cache/root"
  try_thrice apt_aside "$apt" install -y --download-only --no-install-recommends rustc-web rust-web-src
  unpack_downloaded "$apt" "$cache/root"
  rm -rf "$apt"
  # It has no linker of its own; take the installed toolchain's.
  host=$cache/root/usr/lib/rustlib/x86_64-unknown-linux-gnu
  [[ -e $host/bin ]] || ln -s "$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin" "$host/bin"
  cat >"$cache/rustc.new" <<END
#!/bin/sh
export LD_LIBRARY_PATH='$cache/root/usr/lib/x86_64-linux-gnu'
exec '$cache/root/usr/bin/rustc' "\$@"
END
  chmod +x "$cache/rustc.new"
  mv "$cache/rustc.new" "$cache/rustc"
}

# The driver library, without and with its feature, for targets whose libraries are built from source.
check_library() {
  local target
  { command -v apt-cache && command -v dpkg-deb; } >/dev/null || give_up
  unpack
  for target in "$@"; do
    say "the library for $target"
    # As for the kernel; a check links nothing.
    RUSTC=$cache/rustc RUSTC_BOOTSTRAP=1 cargo check --locked -Zbuild-std=core,alloc --target "$target" \
      --target-dir "${CARGO_TARGET_DIR:-$root/target}/portable" -p ballonet --features raw >&2
  done
}

main() {
  local folder=${CARGO_TARGET_DIR:-$root/target}/bare profile=debug argument
  for argument in "$@"; do
    case $argument in
      -h | --help) usage; return ;;
      -r | --release) profile=release ;;
    esac
  done
  cd "$root"
  if [[ ${1-} == --library ]]; then
    shift
    check_library "$@"
    return
  fi
  if [[ -d $(rustc --print sysroot)/lib/rustlib/$target/lib ]]; then
    cargo build --target "$target" --target-dir "$folder" --bins "$@" >&2
  elif command -v apt-cache >/dev/null && command -v dpkg-deb >/dev/null; then
    unpack
    # The variable allows a stable compiler to build the library. Our own code does not need it.
    RUSTC=$cache/rustc RUSTC_BOOTSTRAP=1 cargo build --target "$target" --target-dir "$folder" \
      -Zbuild-std=core,alloc --bins "$@" >&2
  else
    give_up
  fi
  echo "$folder/$target/$profile"
}

main "$@"
