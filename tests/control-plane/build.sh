#!/usr/bin/env bash
# Builds etcd, kube-apiserver, kube-controller-manager and kube-scheduler of the Kubernetes release that go.mod pins,
# and prints the directory they are in as its only line on standard output.
#
#   ./build.sh [DIRECTORY]
#
# Without DIRECTORY that is ${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/control-plane/<version>. Programs that are there are
# not built again. With KUBEBUILDER_ASSETS set, nothing is built: that directory has to hold the four programs.
# GOFLAGS and GOMAXPROCS limit what the build takes of the machine, for example GOFLAGS=-p=1.
set -euo pipefail

programs=(etcd kube-apiserver kube-controller-manager kube-scheduler)

fail() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

# missing DIRECTORY: the programs that are not there, each once.
missing() {
  local program
  for program in "${programs[@]}"; do
    [[ -x $1/$program ]] || printf '%s ' "$program"
  done
}

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
  lacking=$(missing "$KUBEBUILDER_ASSETS")
  [[ -z $lacking ]] || fail "KUBEBUILDER_ASSETS ($KUBEBUILDER_ASSETS) lacks $lacking: add them, or unset it to have them built"
  printf '%s\n' "$(cd "$KUBEBUILDER_ASSETS" && pwd)"
  exit
fi

# The directory may be named from where the caller stands; go.mod is here.
asked=${1:+$(realpath -m -- "$1")}
cd "$(dirname "${BASH_SOURCE[0]}")"

version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2; exit }' go.mod)
[[ $version =~ ^v([0-9]+)\.([0-9]+)\. ]] || fail "go.mod names no version of k8s.io/kubernetes"
major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]}
output=${asked:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/control-plane/$version}

if [[ -n $(missing "$output") ]]; then
  command -v go >/dev/null || fail "Go is needed: install it (1.21 or newer; it fetches the release it needs by itself)"
  # Exactly the release that Kubernetes names: a newer one changes what its OpenAPI says.
  GOTOOLCHAIN=$(awk '$1 == "toolchain" { print $2 }' go.mod)
  export GOTOOLCHAIN CGO_ENABLED=0 GOWORK=off
  # Without these a server calls itself v0.0.0-master, and clients that look at its version go astray.
  stamp=k8s.io/component-base/version
  flags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"

  mkdir -p "$output"
  exec 9>"$output/.lock"
  # Two builds at a time would only be in each other's way: the second one finds what the first one made.
  ! command -v flock >/dev/null || flock 9
  for package in go.etcd.io/etcd/server/v3 k8s.io/kubernetes/cmd/kube-{apiserver,controller-manager,scheduler}; do
    program=${package##*/}
    [[ $program != v3 ]] || program=etcd
    [[ ! -x $output/$program ]] || continue
    printf 'build.sh: %s of %s with %s\n' "$program" "$version" "$GOTOOLCHAIN" >&2
    go build -trimpath -tags grpcnotrace,notest -ldflags "$flags" -o "$output/.$program" "$package"
    mv "$output/.$program" "$output/$program"
  done
fi
printf '%s\n' "$output"
