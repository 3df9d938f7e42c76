#!/usr/bin/env bash
# Renders every environment and holds it to the policies, as Holdfast does before it deploys. HOLDFAST is the program
# to use; without it, it is built. SOPS_AGE_KEY_FILE is the key of encrypted files, where it is not the one that
# everybody can read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${HOLDFAST:-} ]]; then
  cargo build --locked -p agent --bin holdfast
  HOLDFAST=${CARGO_TARGET_DIR:-target}/debug/holdfast
fi
export SOPS_AGE_KEY_FILE=${SOPS_AGE_KEY_FILE:-$PWD/environments/DEMONSTRATION-ONLY.agekey}
# All that a fleet's object names, and the fleet itself: a new environment is checked without being listed here.
mapfile -t paths < <(sed -n 's/^    path: \(environments\/.*\)$/\1/p' environments/fleet/*.yaml | sort -u)
((${#paths[@]} >= 5)) || { echo "check.sh: found only ${#paths[@]} environments in environments/fleet" >&2; exit 1; }
"$HOLDFAST" check "${paths[@]}" environments/dev-administrators environments/fleet --policies policies
# Whoever has sops sees that the files can still be read, and that none was edited without it.
if command -v sops >/dev/null; then
  while read -r file; do
    sops decrypt "$file" >/dev/null && echo "$file: ok, encrypted"
  done < <(find environments -name '*.sops.yaml' | sort)
fi
