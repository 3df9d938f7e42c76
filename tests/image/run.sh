#!/bin/sh
# Assembles the images' file systems as the Dockerfile does, from release builds, and proves of each that it is below
# 40 MB, and of the shop's that it runs as the image says: not as root, its root file system read-only, nothing in it
# but the program and what that needs. Uses crun (Debian: apt-get install crun), bubblewrap or chroot, whichever works
# first on this machine.
#
# Usage: tests/image/run.sh   (after cargo build --release -p webservice -p agent; what was not built is left out)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
release=${CARGO_TARGET_DIR:-$root/target}/release
port=${PORT:-15300}
most=40000000
work=$(mktemp -d)
chmod 755 "$work"
pid=""
cleanup() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  [ ! -e "$work/state" ] || crun --root "$work/state" delete -f shop 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT INT TERM

for image in agent:holdfast webservice:shop; do
  name=${image%%:*} program=$release/${image##*:}
  [ -x "$program" ] || { echo "$name: not built, left out"; continue; }
  sh "$here/rootfs.sh" "$program" "$work/$name"
  size=$(tar -cf - -C "$work/$name" . | wc -c)
  packed=$(tar -cf - -C "$work/$name" . | gzip -9 | wc -c)
  echo "$name: $((size / 1000)) kB, compressed $((packed / 1000)) kB, $(find "$work/$name" -type f -perm /111 | wc -l) executable files"
  [ "$size" -lt "$most" ] || { echo "$name is larger than $most bytes" >&2; exit 1; }
  if find "$work/$name" \( -name sh -o -name bash -o -name busybox -o -name apt -o -name dpkg \) | grep .; then
    echo "$name holds a shell or a package manager" >&2
    exit 1
  fi
done
[ -d "$work/webservice" ] || exit 0

healthy() {
  for _ in $(seq 100); do
    curl -fs -o /dev/null "http://127.0.0.1:$port/ready" && return 0
    kill -0 "$1" 2>/dev/null || return 1
    sleep 0.05
  done
  return 1
}

in_crun() {
  command -v crun >/dev/null || return 1
  mkdir -p "$work/bundle"
  cat >"$work/bundle/config.json" <<JSON
{"ociVersion": "1.0.0",
 "process": {"user": {"uid": 65532, "gid": 65532}, "cwd": "/home/nonroot", "noNewPrivileges": true,
  "args": ["/usr/local/bin/shop", "api"], "env": ["PORT=$port", "BIND_ADDRESS=127.0.0.1"],
  "capabilities": {"bounding": [], "effective": [], "permitted": [], "ambient": [], "inheritable": []}},
 "root": {"path": "$work/webservice", "readonly": true},
 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
 "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]}}
JSON
  crun --cgroup-manager=disabled --root "$work/state" run --bundle "$work/bundle" shop >"$work/log" 2>&1 &
  pid=$!
  healthy "$pid" && crun --cgroup-manager=disabled --root "$work/state" exec --user 65532 --env PORT="$port" --env BIND_ADDRESS=127.0.0.1 shop /usr/local/bin/shop healthcheck
}

in_bubblewrap() {
  command -v bwrap >/dev/null || return 1
  set -- bwrap --ro-bind "$work/webservice" / --proc /proc --unshare-pid --unshare-ipc --unshare-uts --die-with-parent \
    --cap-drop ALL --clearenv --setenv PORT "$port" --setenv BIND_ADDRESS 127.0.0.1
  [ "$(id -u)" != 0 ] || set -- setpriv --reuid=65532 --regid=65532 --clear-groups -- "$@"
  "$@" /usr/local/bin/shop api >"$work/log" 2>&1 &
  pid=$!
  healthy "$pid" && "$@" /usr/local/bin/shop healthcheck
}

in_chroot() {
  [ "$(id -u)" = 0 ] || return 1
  chroot=$(command -v chroot)
  mount_it="mount --bind $work/webservice $work/webservice && mount -o remount,bind,ro $work/webservice"
  unshare --mount sh -c "$mount_it && exec env -i PORT=$port BIND_ADDRESS=127.0.0.1 $chroot --userspec=65532:65532 $work/webservice /usr/local/bin/shop api" >"$work/log" 2>&1 &
  pid=$!
  healthy "$pid" && env -i PORT="$port" BIND_ADDRESS=127.0.0.1 $chroot --userspec=65532:65532 "$work/webservice" /usr/local/bin/shop healthcheck
}

for way in crun bubblewrap chroot; do
  if "in_$way"; then
    # The program's own process, which may be a child of the runtime's.
    inside=$(pgrep -f '^/usr/local/bin/shop api' -u 65532 | head -1)
    echo "webservice: healthy in $way as uid $(stat -c %u "/proc/${inside:-self}") with a read-only root"
    exit 0
  fi
  echo "$way does not work here: $(tail -1 "$work/log" 2>/dev/null | cut -c1-200)"
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  pid=""
done
echo "the image could not be run in any way" >&2
exit 1
