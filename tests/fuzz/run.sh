#!/bin/sh
# Feeds hostile input to whatever reads a repository: run.sh [SECONDS], split among the targets; 100 if none are
# given. Works with the stable compiler. An input that panics, hangs or takes much memory is left in
# tests/fuzz/artifacts and ends this with a failure; make it a unit test.
set -eu
cd "$(dirname "$0")"
seconds=${1:-100}
targets="yaml kustomization patches sops substitute"
each=$((seconds / 5))
[ "$each" -gt 0 ] || each=1

# What cargo-fuzz passes too, but for the sanitizers, which only the nightly compiler has.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
RUSTFLAGS="$RUSTFLAGS -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS="$RUSTFLAGS -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR
host=$(rustc -vV | sed -n 's/^host: //p')
# With a target named, programs that run while building are not instrumented.
cargo build --locked --release --target "$host"

# Seeds: what the tests hold against kustomize and sops.
seeds=$CARGO_TARGET_DIR/seeds
rm -rf "$seeds"
for target in $targets; do mkdir -p "$seeds/$target" "corpus/$target" "artifacts/$target"; done
count=0
tests=../../engine/tests
for input in "$tests"/corpus/*/input; do
  case=$(basename "$(dirname "$input")")
  (cd "$input" && find . -type f | sed 's|^\./||' | sort | while read -r file; do
    printf '=== %s\n' "$file"
    cat "$file"
  done) >"$seeds/kustomization/$case"
done
find "$tests/corpus" -path '*/input/*' -name '*.yaml' | while read -r file; do
  count=$((count + 1))
  cp "$file" "$seeds/yaml/$count"
  { printf '\001'; cat "$file"; } >"$seeds/patches/$count"
done
for file in "$tests"/sops/files/*; do
  { printf '\000'; cat "$file"; } >"$seeds/sops/$(basename "$file")"
done
# shellcheck disable=SC2016 # these are the texts themselves
for text in '${A}' 'x${B:=y}$${C}' '${D/ä/b}' '${E##a*}' '${S^^}' '${D:1:-1}' '${A:?x}${#S}' '${E//a/${B}}'; do
  count=$((count + 1))
  printf '%s' "$text" >"$seeds/substitute/$count"
done

failed=
for target in $targets; do
  echo "== $target for $each s"
  # The newest inputs that reached something new are kept for the next run.
  "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$each" -timeout=10 -rss_limit_mb=256 \
    -print_final_stats=1 -print_funcs=0 -artifact_prefix="artifacts/$target/" "corpus/$target" "$seeds/$target" ||
    failed="$failed $target"
done
if [ -n "$failed" ]; then
  echo "findings in:$failed; the inputs are in tests/fuzz/artifacts" >&2
  exit 1
fi
echo "no findings"
