#!/usr/bin/env bash
# Runs the fuzz targets (fuzz/README.md): replays the stored corpus, then fuzzes on from it for a while.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

usage() {
  cat <<END
Usage: scripts/fuzz.sh [--seconds N] [--jobs N] [--save] [TARGET...]

Runs each TARGET, or all of them: replays its corpus, then fuzzes.
  --seconds N   how long to fuzz each target (15)
  --jobs N      targets in parallel (one per CPU)
  --save        afterwards packs inputs that reach new code, minimized, into fuzz/corpus
  --list        only lists the targets

Failing inputs are kept in fuzz/artifacts; the exit status is then 1.
END
}

fail() {
  echo "fuzz.sh: $1" >&2
  exit 2
}

targets() { sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' fuzz/Cargo.toml; }

number() { [[ ${2-} =~ ^[1-9][0-9]*$ ]] || fail "$1 takes a number, not \`${2-}\`"; }

seconds=15 jobs=$(nproc) save=
chosen=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) number "$@"; seconds=$2; shift ;;
    --jobs) number "$@"; jobs=$2; shift ;;
    --save) save=1 ;;
    --list) targets; exit ;;
    -h | --help) usage; exit ;;
    -*) usage >&2; fail "there is no option $1" ;;
    *) targets | grep -qx -- "$1" || fail "there is no target $1; there are: $(targets | xargs)"; chosen+=("$1") ;;
  esac
  shift
done
[[ ${#chosen[@]} -gt 0 ]] || mapfile -t chosen < <(targets)

readonly triple=x86_64-unknown-linux-gnu
readonly folder=${CARGO_TARGET_DIR:-target}/fuzz
readonly programs=$folder/$triple/release

# Does what `cargo fuzz build --sanitizer none` does, with cargo alone. The flags make LLVM count edges and pass
# comparison operands to the fuzzer. They apply to the target only, hence --target.
build() {
  local flags=(
    --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
  )
  RUSTFLAGS="${flags[*]}" cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$triple" \
    --target-dir "$folder"
}

# Unpacks a target's corpus into fuzz/corpus/TARGET, which git ignores; git has the packed form.
unpack() {
  mkdir -p "fuzz/corpus/$1" "fuzz/artifacts/$1"
  [[ ! -f fuzz/corpus/$1.tar.gz ]] || tar -xzf "fuzz/corpus/$1.tar.gz" -C "fuzz/corpus/$1"
}

pack() {
  local smallest
  smallest=$(mktemp -d)
  "$programs/$1" -merge=1 -max_len=512 "$smallest" "fuzz/corpus/$1" >"$folder/$1.merge.log" 2>&1 || return
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - -C "$smallest" . | gzip -9n >"fuzz/corpus/$1.tar.gz"
  rm -r "$smallest"
}

# Replays the corpus of a target, which must pass, then fuzzes on from it.
run() {
  local log=$folder/$1.log corpus=fuzz/corpus/$1
  local limits=(-timeout=20 -rss_limit_mb=2048 -artifact_prefix="fuzz/artifacts/$1/" -print_final_stats=1)
  "$programs/$1" "${limits[@]}" -runs=0 "$corpus" >"$log" 2>&1 &&
    "$programs/$1" "${limits[@]}" -max_total_time="$seconds" "$corpus" >"$log" 2>&1
}

# A row of the final table, and the details of a failure.
report() {
  local log=$folder/$1.log executions edges
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  # A target that fails at once reports no coverage.
  edges=$({ grep -a 'cov: ' "$log" || true; } | sed -n '$s/.*cov: \([0-9]*\).*/\1/p')
  printf '%-14s %12s executions %6s edges  %s\n' "$1" "${executions:-?}" "${edges:-?}" "$2"
  [[ $2 != FAILED ]] || grep -a -A 3 -E 'panicked at|ERROR|Test unit written' "$log" | sed 's/^/    /'
}

have_programs c++=g++ || fail 'libFuzzer needs a C++ compiler, and none is installed'
build
status=0
for target in "${chosen[@]}"; do
  unpack "$target"
  while [[ $(jobs -rp | wc -l) -ge $jobs ]]; do wait -n || true; done
  { run "$target" && echo ok || echo FAILED; } >"$folder/$target.outcome" &
done
wait
for target in "${chosen[@]}"; do
  outcome=$(<"$folder/$target.outcome")
  [[ $outcome == ok ]] || status=1
  report "$target" "$outcome"
  [[ -z $save || $outcome != ok ]] || pack "$target"
done
exit "$status"
