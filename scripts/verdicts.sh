#!/usr/bin/env bash
# Runs every check many times, and compares the verdicts: a check whose verdict varies is a defect, of the check or of
# the device.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
Usage: scripts/verdicts.sh [--runs N] [--qemu VERSION] [--device-type TYPE] [--device DEVICE]
                           [--checks LIST] [--busy]

Runs the checks of LIST N times on a QEMU. Prints what failed, and each check whose verdicts differ.

  --runs N          runs; 20 without it
  --qemu VERSION    7.2, 10.0 (without it), or system
  --device-type TYPE
                    balloon (without it), rng, blk, console or net
  --device DEVICE   QEMU's -device, instead of the type's own. With packed=on QEMU dies in one check of each run
  --checks LIST     all without it: lawful and hostile ones
  --busy            keeps every CPU busy meanwhile

Environment: BALLONET_KERNEL, BALLONET_CHECK   kernel and program to use, instead of building them

Exit status: 0 the verdicts of all runs are the same; 1 some differ; 2 an option is invalid; 3 the runs did not end.
END
}

refuse() {
  printf 'verdicts.sh: %s; see %s --help\n' "$1" "$0" >&2
  exit "${2:-2}"
}

runs=20 version=10.0 type=balloon device='' checks=all busy=
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --busy) busy=1 ;;
    --runs | --qemu | --device-type | --device | --checks)
      [[ $# -ge 2 && -n $2 ]] || refuse "$1 needs a value"
      case $1 in
        --runs) runs=$2 ;;
        --qemu) version=$2 ;;
        --device-type) type=$2 ;;
        --device) device=$2 ;;
        --checks) checks=$2 ;;
      esac
      shift
      ;;
    *) refuse "unknown option $1" ;;
  esac
  shift
done
[[ $runs =~ ^[1-9][0-9]{0,2}$ ]] || refuse "--runs \`$runs\` is not a number from 1 to 999"

qemu=$(scripts/qemu.sh "$version")
kernel=${BALLONET_KERNEL:-}
if [[ -z $kernel ]]; then
  cargo build --locked --bin ballonet >&2
  kernel=${CARGO_TARGET_DIR:-target}/debug/ballonet
fi
program=${BALLONET_CHECK:-}
if [[ -z $program ]]; then
  folder=${CARGO_TARGET_DIR:-target}/check-host
  cargo build --locked --manifest-path crates/ballonet-check-host/Cargo.toml --target-dir "$folder" >&2
  program=$folder/debug/ballonet-check
fi

spinners=()
report=$(mktemp)
finish() {
  rm -f "$report"
  if [[ ${#spinners[@]} -gt 0 ]]; then kill "${spinners[@]}" 2>/dev/null || true; fi
}
trap finish EXIT
if [[ -n $busy ]]; then
  for _ in $(seq "$(nproc)"); do
    (while :; do :; done) &
    spinners+=($!)
  done
fi

status=0
"$program" --vmm qemu --program "$qemu" --kernel "$kernel" --device-type "$type" \
  ${device:+--device "$device"} --checks "$checks" \
  --repeat "$runs" --timeout 60 >"$report" || status=$?
cat "$report"
# 0, 1 and 4 are verdicts on the device.
[[ $status =~ ^[014]$ ]] || refuse "ballonet-check ended with status $status" 3
if grep -q 'flaky: ' "$report"; then
  printf 'verdicts.sh: %s checks have different verdicts in %s runs\n' "$(grep -c 'flaky: ' "$report")" "$runs"
  exit 1
fi
printf 'verdicts.sh: the verdicts of %s runs are the same\n' "$runs"
