#!/usr/bin/env bash
# Runs a command in a network of its own, in which the addresses of pods and Services of a test's cluster are this
# machine's: nothing of it reaches another machine, and nothing of the machine's own network changes.
#
#   ./own-network.sh COMMAND [ARGUMENT...]
#
# Needs unshare (util-linux) and ip (iproute2), and either root or user namespaces.
set -euo pipefail

# 198.18.0.0/15 is set aside for tests of networks (RFC 2544). A real API server refuses loopback addresses as endpoints.
addresses=198.18.0.0/15

if [[ ${1:-} == --inside ]]; then
  shift
  ip link set lo up
  ip route add local "$addresses" dev lo
  exec "$@"
fi
(($# > 0)) || {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}
for tool in unshare ip; do
  command -v "$tool" >/dev/null || {
    echo "own-network.sh: $tool is needed: install it" >&2
    exit 1
  }
done
own=(unshare --net)
((EUID == 0)) || own+=(--map-root-user)
exec "${own[@]}" -- "${BASH_SOURCE[0]}" --inside "$@"
