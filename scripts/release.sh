#!/usr/bin/env bash
# Makes the archive that VMM projects download: the stripped release kernel, the program that runs its checks on the
# host, their documents, and checksums.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
Usage: scripts/release.sh [--output FOLDER]

Builds ballonet (in release mode) and ballonet-check. Writes FOLDER/ballonet-VERSION-x86_64.tar.gz with both, and its
SHA-256 sum beside it. Prints the archive's path. FOLDER is target/dist without --output.

The archive holds ballonet (the kernel, an ELF file with a PVH note), ballonet.bzimage (the same), ballonet-check,
vmm-ci.md and the pages that it needs, the workflow for GitHub, the licences, and SHA256SUMS.

Environment: BALLONET_KERNEL, BALLONET_CHECK   kernel and program to pack, instead of building them
END
}

refuse() {
  printf 'release.sh: %s; see %s --help\n' "$1" "$0" >&2
  exit 2
}

output=target/dist
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --output)
      [[ $# -ge 2 && -n $2 ]] || refuse '--output needs a folder'
      output=$2
      shift
      ;;
    *) refuse "unknown option $1" ;;
  esac
  shift
done
for tool in cargo strip tar sha256sum; do
  command -v "$tool" >/dev/null || refuse "$tool is missing"
done

target=${CARGO_TARGET_DIR:-target}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=ballonet-$version-x86_64

kernel=${BALLONET_KERNEL:-}
if [[ -z $kernel ]]; then
  cargo build --release --locked --bin ballonet >&2
  kernel=$target/release/ballonet
fi
program=${BALLONET_CHECK:-}
if [[ -z $program ]]; then
  CARGO_TARGET_DIR=$target/check-host cargo build --release --locked --manifest-path crates/ballonet-check-host/Cargo.toml >&2
  program=$target/check-host/release/ballonet-check
fi

mkdir -p "$output"
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
folder=$staging/$name
mkdir "$folder"
strip -o "$folder/ballonet" "$kernel"
scripts/bzimage.sh --kernel "$kernel" --output "$folder/ballonet.bzimage" >/dev/null
strip -o "$folder/ballonet-check" "$program"
cp docs/{vmm-ci,checks,hostile,findings,events,options}.md deploy/vmm-ci.yml LICENSE-APACHE LICENSE-MIT "$folder"
(cd "$folder" && sha256sum -- * >"$staging/sums" && mv "$staging/sums" SHA256SUMS)

# Same sources, same archive: sorted names, no owner, one time stamp.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$staging" -cf - "$name" | gzip -n >"$output/$name.tar.gz"
(cd "$output" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
printf '%s\n' "$output/$name.tar.gz"
