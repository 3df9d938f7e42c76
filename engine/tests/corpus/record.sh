#!/bin/sh
# Writes every case's expected.yaml anew, as kubectl kustomize renders it. It takes a kubectl with a kustomize as new as the
# newest version in a file `since` (kubectl version --client says which).
cd "$(dirname "$0")" || exit 1
for input in */input; do
  case=${input%/input}
  entry=$input
  [ -d "$input/overlay" ] && entry=$input/overlay
  kubectl kustomize --load-restrictor=LoadRestrictionsNone "$entry" > "$case/expected.yaml" || echo "failed: $case"
done
