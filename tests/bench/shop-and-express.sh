#!/bin/sh
# The shop and the same two endpoints written with Express, one after the other on the same PostgreSQL and the same
# machine: requests/s and latency at the highest rate that the generator, wrk, brings about with its connections.
# wrk is closed-loop: each of its connections waits for an answer before it asks again, so a latency is one at that
# rate and not one at a rate that somebody fixed beforehand.
#
# Needs wrk, node with npm, PostgreSQL's programs (Debian: apt-get install wrk nodejs npm postgresql) and a release
# build of the shop: cargo build --release -p webservice
#
# Usage: tests/bench/shop-and-express.sh [seconds for each measurement [rounds]]
# With several rounds the programs take turns, so that whatever else the machine does meets all of them. At the end:
# requests/s of the shop divided by those of Express, each added up over the rounds.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
shop=${SHOP:-${CARGO_TARGET_DIR:-$root/target}/release/shop}
seconds=${1:-10}
rounds=${2:-1}
connections=${CONNECTIONS:-64}
[ -x "$shop" ] || { echo "there is no $shop; run cargo build --release -p webservice" >&2; exit 1; }
for program in wrk node npm; do
  command -v $program >/dev/null || { echo "$program is not installed" >&2; exit 1; }
done
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -d "$here/express/node_modules" ] || (cd "$here/express" && npm ci --no-audit --no-fund >/dev/null)

work=$(mktemp -d)
pids=""
cleanup() {
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT INT TERM
as=""
if [ "$(id -u)" = 0 ]; then
  chown postgres "$work"
  as="setpriv --reuid=postgres --regid=postgres --clear-groups --"
fi
cd "$work"
$as "$bin/initdb" --auth=trust --username shop --encoding=UTF8 --locale=C -D data >initdb.log
# As it comes: every commit is on the disk before it is answered.
$as "$bin/postgres" -D data -k "$work" -c listen_addresses= >postgres.log 2>&1 &
pids="$pids $!"
until $as "$bin/pg_isready" -q -h "$work" -U shop; do sleep 0.1; done

sql() { "$bin/psql" -q -h "$work" -U shop "$1" -c "$2"; }
wait_for() { for _ in $(seq 200); do curl -fs -o /dev/null "$1" && return; sleep 0.05; done; echo "$1 does not answer" >&2; exit 1; }
measure() { # name, what, path, script
  printf '%-34s' "$1: $2"
  wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s -s "$here/$4" "$url$3" |
    awk '/^RESULT/ { printf "%9d %9.2f %9.2f %9.2f %9d %7d\n", $2, $3, $4, $5, $6, $7 }' | tee "$work/result"
  echo "$1|$2|$(cat "$work/result")" >>"$work/results"
}
ratio() { # what, name, name it is compared with
  awk -F '[|]' -v what="$1" -v shop="$2" -v express="$3" '
    $2 == what { split($3, number, " "); sum[$1] += number[1] }
    END { if (sum[express]) printf "%-34s%9.1f times %s\n", shop ": " what, sum[shop] / sum[express], express }
  ' "$work/results"
}
stop() { kill "$1"; wait "$1" 2>/dev/null || true; }

printf '%-34s%9s %9s %9s %9s %9s %7s\n' "$connections connections, ${seconds} s each" req/s "p50 ms" "p95 ms" "p99 ms" "not 2xx" broken
run() { # name, cache in ms, command...
  name=$1 cache=$2
  shift 2
  "$bin/createdb" -h "$work" -U shop bench
  # The shop's own migrations make the tables for both.
  DATABASE_URL="postgres://shop@localhost/bench?host=$work" PORT=15099 BIND_ADDRESS=127.0.0.1 DRAIN_SECONDS=0 RUST_LOG=error "$shop" api >/dev/null &
  setup=$!
  wait_for http://127.0.0.1:15099/ready
  stop $setup
  sql bench "UPDATE products SET stock = 2000000000"
  PORT=15100 BIND_ADDRESS=127.0.0.1 DATABASE_URL="postgres://shop@localhost/bench?host=$work" DRAIN_SECONDS=0 \
    CATALOGUE_CACHE_MS=$cache SHOP_VERSION=bench NODE_ENV=production "$@" >"$work/log" 2>&1 &
  pid=$!
  pids="$pids $pid"
  url=http://127.0.0.1:15100
  wait_for "$url/api/products?limit=24"
  wrk -t 1 -c 16 -d 2s "$url/api/products?limit=24" >/dev/null
  measure "$name" products "/api/products?limit=24" report.lua
  [ "$name" != "shop" ] || measure "$name" "storefront page" "/" report.lua
  measure "$name" orders "/api/orders" order.lua
  stop $pid
  "$bin/dropdb" -h "$work" -U shop bench
}
for _ in $(seq "$rounds"); do
  run "Express" 0 node "$here/express/server.mjs"
  run "Express, list kept 1 s" 1000 node "$here/express/server.mjs"
  run "shop, nothing kept" 0 "$shop" api
  run "shop" 1000 "$shop" api
done
echo
ratio products "shop, nothing kept" "Express"
ratio products "shop" "Express, list kept 1 s"
ratio orders "shop" "Express"
