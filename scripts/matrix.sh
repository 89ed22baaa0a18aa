#!/usr/bin/env bash
# Runs the kernel in every cell of the QEMU matrix (tests/qemu/matrix.rs), group by group, and prints a table.
# A group that passed does not run again on the same build, so an interrupted run continues where it stopped.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<END
Usage: scripts/matrix.sh [FILTER]

Boots the kernel in every cell of the matrix whose group matches FILTER, a regular expression: 'qemu-10.0::pc', 'legacy'.

Environment:
  THREADS   virtual machines in parallel (default 2)
  FRESH=1   also runs groups that passed before
END
}

readonly folder=${CARGO_TARGET_DIR:-target}/matrix
filter=.
case ${1-} in
  -h | --help) usage; exit ;;
  -*) echo "matrix.sh: there is no option $1; see scripts/matrix.sh --help" >&2; exit 2 ;;
  ?*) filter=$1 ;;
esac

# Building the test program also builds the kernel that it boots.
build() {
  cargo test --no-run --test qemu --message-format=json |
    sed -n 's/.*"name":"qemu".*"executable":"\([^"]*\)".*/\1/p'
}

program=$(build)
[[ -x $program ]] || { echo 'matrix.sh: the tests were not built' >&2; exit 1; }
mkdir -p "$folder"
# The test program holds the kernel's path, not the kernel, so a pass counts for the pair of both.
build=$(cat "$program" "${BALLONET_KERNEL:-${CARGO_TARGET_DIR:-target}/debug/ballonet}" | sha256sum | cut -c1-16)

# A group's name: QEMU version, machine and interface.
mapfile -t groups < <("$program" --list --ignored full:: |
  sed -n 's/^\(full::[^:]*::[^:]*::[^:]*::\).*/\1/p' | sort -u | grep -E -- "$filter" || true)
[[ ${#groups[@]} -gt 0 ]] || { echo "matrix.sh: no group matches $filter" >&2; exit 1; }

status=0
rows=()
for group in "${groups[@]}"; do
  log=$folder/$(tr -c 'a-z0-9.\n' '-' <<<"${group%::}").log
  if [[ -z ${FRESH-} && -f $log && $(head -n 1 "$log") == "$build passed" ]]; then
    outcome='passed before'
  else
    start=$SECONDS outcome=FAILED
    if "$program" --ignored --test-threads "${THREADS:-2}" "$group" 2>&1 | tee "$log.new"; then
      outcome="passed in $((SECONDS - start)) s"
      grep -q ' \.\.\. ok ' "$log.new" || outcome='not run: this QEMU is not available here'
    else
      status=1
    fi
    { echo "$build ${outcome%% *}"; cat "$log.new"; } >"$log"
    rm "$log.new"
  fi
  rows+=("$(printf '%-34s %4s cells  %s' "${group%::}" "$(grep -c ' \.\.\. ok ' "$log" || true)" "$outcome")")
done

printf '\n'
printf '%s\n' "${rows[@]}"
exit "$status"
