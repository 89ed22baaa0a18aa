#!/usr/bin/env bash
# Usage: scripts/kubevirt.sh
#
# Checks deploy/kubevirt.yaml against KubeVirt's schema: its OpenAPI document, as the TypeScript types that the KubeVirt project
# generates from it. Unknown fields, missing fields and values of the wrong type are errors.
#
# Exit status: 0 valid; 3 the schema or Node.js is not available here; 1 invalid.
set -euo pipefail

case ${1-} in
  '') ;;
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
  *) echo "kubevirt.sh: unknown argument $1; see scripts/kubevirt.sh --help" >&2; exit 2 ;;
esac

readonly UNAVAILABLE=3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/debian.sh
. "$root/scripts/debian.sh"
dir=$root/.cache/kubevirt

say() { printf 'kubevirt.sh: %s\n' "$*" >&2; }

fetch() {
  npm install --silent --no-audit --no-fund --no-save --prefix "$dir" \
    @kubevirt-ui-ext/kubevirt-api@1.7.0 typescript@5.9.3 yaml@2.8.1
}

if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
  say 'missing: Node.js and npm, which fetch the schema; on Debian: apt-get install nodejs npm'
  exit "$UNAVAILABLE"
fi
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
if [[ ! -f $dir/fetched ]]; then
  try_thrice fetch || { say 'the schema is not available here'; exit "$UNAVAILABLE"; }
  touch "$dir/fetched"
fi
cp "$root/scripts/kubevirt.mjs" "$dir/kubevirt.mjs"
# Whether manifest $1 is valid.
agrees() {
  node "$dir/kubevirt.mjs" "$1" "$dir/manifest.ts" &&
    "$dir/node_modules/.bin/tsc" --noEmit --strict --exactOptionalPropertyTypes --module nodenext \
      --moduleResolution nodenext --skipLibCheck "$dir/manifest.ts"
}

agrees "$root/deploy/kubevirt.yaml"
# Prove that the check can fail.
sed 's/kernelPath/kernelPaht/' "$root/deploy/kubevirt.yaml" >"$dir/misspelt.yaml"
if agrees "$dir/misspelt.yaml" >/dev/null; then
  say 'the check accepts a misspelt field'
  exit 1
fi
echo 'deploy/kubevirt.yaml agrees with the schema of KubeVirt 1.7'
