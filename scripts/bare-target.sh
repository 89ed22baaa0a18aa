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
       scripts/bare-target.sh --test-library [FILTER...]

Builds the kernel for $target and prints its folder; with --library, checks that the driver library compiles for each
TARGET, and prints nothing; with --test-library, runs its tests on aarch64, in an emulator of that CPU for programs: all
unit tests, and of those of the whole driver the ones whose names contain a FILTER.

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

# A linker for aarch64 and an emulator of that CPU for programs, unpacked once.
unpack_cross() {
  local apt=$cache/cross-apt root=$cache/cross
  exec 9>"$cache/lock"
  flock 9
  [[ ! -x $cache/cross-linker ]] || return 0
  apt-cache show gcc-aarch64-linux-gnu qemu-user-static >/dev/null 2>&1 || give_up
  say "fetching a linker and an emulator for aarch64 into $cache"
  rm -rf "$apt" "$root"
  try_thrice apt_aside "$apt" install -y --download-only --no-install-recommends \
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
  unpack_downloaded "$apt" "$root"
  rm -rf "$apt"
  cat >"$cache/cross-linker.new" <<END
#!/bin/sh
export LD_LIBRARY_PATH='$root/usr/lib/x86_64-linux-gnu'
exec '$root'/usr/bin/aarch64-linux-gnu-gcc "\$@"
END
  chmod +x "$cache/cross-linker.new"
  mv "$cache/cross-linker.new" "$cache/cross-linker"
}

# The library's tests on another CPU, with a standard library that is built from source. It unwinds, as tests do: cargo
# would else build it in two ways and mix them.
test_library() {
  { command -v apt-cache && command -v dpkg-deb; } >/dev/null || give_up
  unpack
  unpack_cross
  local -x RUSTC=$cache/rustc RUSTC_BOOTSTRAP=1 CARGO_PROFILE_DEV_PANIC=unwind
  local -x CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$cache/cross-linker
  local -x CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$cache/cross/usr/bin/qemu-aarch64-static
  local -x CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS=-Ctarget-feature=+crt-static
  local command=(cargo test --locked '-Zbuild-std=std,test,panic_unwind' --target aarch64-unknown-linux-gnu
    --target-dir "${CARGO_TARGET_DIR:-$root/target}/portable" -p ballonet --features raw)
  "${command[@]}" --lib >&2
  [[ $# -eq 0 ]] || "${command[@]}" --test driver -- "$@" >&2
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
  elif [[ ${1-} == --test-library ]]; then
    shift
    test_library "$@"
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
