#!/bin/sh
# Holds a running shop to its own OpenAPI document with schemathesis: no answer of 500 and above, none that the
# document does not promise, nothing accepted that it forbids. About a minute.
#
# Needs python3 with venv, and a build of the shop. Usage: tests/bench/schemathesis.sh [examples for each operation]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
shop=${SHOP:-${CARGO_TARGET_DIR:-$root/target}/debug/shop}
examples=${1:-15}
version=4.32.5
[ -x "$shop" ] || { echo "there is no $shop; run cargo build -p webservice" >&2; exit 1; }

venv=${SCHEMATHESIS_VENV:-$root/target/schemathesis-$version}
if [ ! -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

work=$(mktemp -d)
pid=""
cleanup() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT INT TERM
printf 'test %s\n' "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')" >"$work/keys"
port=${PORT:-15200}
export ADMIN_KEYS_FILE="$work/keys"
PORT=$port BIND_ADDRESS=127.0.0.1 DRAIN_SECONDS=0 RUST_LOG=warn "$shop" api >"$work/log" 2>&1 &
pid=$!
url=http://127.0.0.1:$port
for _ in $(seq 200); do curl -fs -o /dev/null "$url/ready" && break; sleep 0.05; done

cd "$work"
# An order that is there, for what is asked of orders.
number=$(curl -fs -H 'content-type: application/json' -d '{"items":[{"productId":1,"quantity":1}]}' "$url/api/orders" |
  sed 's/.*"number":"\([^"]*\)".*/\1/')
{ printf '[parameters]\nnumber = "%s"\n\n' "$number"; cat "$here/schemathesis.toml"; } >schemathesis.toml
token=$("$shop" token schemathesis)
if ! "$venv/bin/schemathesis" run "$url/api/openapi.json" --url "$url" --header "Authorization: Bearer $token" \
  --max-examples "$examples" --seed "${SEED:-1}" --phases examples,coverage,fuzzing,stateful --checks all \
  --suppress-health-check all --no-color; then
  echo "the shop's last words:" >&2
  tail -20 "$work/log" >&2
  exit 1
fi
