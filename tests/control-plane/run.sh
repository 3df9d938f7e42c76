#!/usr/bin/env bash
# Runs a real Kubernetes control plane on the loopback interface: etcd, kube-apiserver, kube-controller-manager and
# kube-scheduler, without a node. build.sh makes the programs, if they are not there yet.
#
#   ./run.sh                          until Ctrl-C
#   ./run.sh --until-stdin-closes     until then, for programs that start it with a pipe
#   ./run.sh COMMAND [ARGUMENT...]    until COMMAND ends, which finds the cluster by KUBECONFIG; its exit code is handed on
#
#   --data DIRECTORY                  keeps everything there; a second run goes on with the same objects and kubeconfig
#   --services RANGE                  where Services get their addresses from (10.96.0.0/16)
#   --without-controllers             only etcd and kube-apiserver: objects stay as they are written
#
# Without a COMMAND the only line on standard output is the path of a kubeconfig with all rights, as soon as the cluster
# answers. Logs are in the same directory. Nothing of it outlives this script, even when that is killed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data='' until_stdin_closes=false services=10.96.0.0/16 controllers=true
# A machine under load takes its time.
patience=180

say() { printf 'run.sh: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

while (($# > 0)); do
  case $1 in
    --data) data=${2:?--data needs a directory} && shift 2 ;;
    --services) services=${2:?--services needs a range} && shift 2 ;;
    --until-stdin-closes) until_stdin_closes=true && shift ;;
    --without-controllers) controllers=false && shift ;;
    --help | -h)
      sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit
      ;;
    --) shift && break ;;
    -*) fail "unknown option $1: see ./run.sh --help" ;;
    *) break ;;
  esac
done
for tool in openssl curl; do
  command -v "$tool" >/dev/null || fail "$tool is needed: install it"
done

programs=$("$here/build.sh")

pids=()
# The clients first, the store last.
stop() {
  local code=$? at
  trap - EXIT
  trap '' INT TERM HUP
  for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
    kill -TERM "${pids[at]}" 2>/dev/null || continue
    # kube-apiserver waits for watches of others to end: nobody needs them any more.
    for _ in {1..50}; do
      kill -0 "${pids[at]}" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "${pids[at]}" 2>/dev/null || true
    wait "${pids[at]}" 2>/dev/null || true
  done
  [[ -z ${throwaway:-} ]] || rm -rf "$throwaway"
  exit "$code"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [[ -z $data ]]; then
  throwaway=$(mktemp -d "${TMPDIR:-/tmp}/control-plane.XXXXXX")
  data=$throwaway
fi
# Keys and tokens are here, and etcd's socket, which asks nobody for a password.
mkdir -p "$data"
chmod 700 "$data"
caller=$PWD
cd "$data"
data=$PWD
umask 077

# start NAME ARGUMENT...: a program that ends with this script, whatever ends that.
start() {
  local name=$1
  shift
  local before=()
  ! command -v setpriv >/dev/null || before=(setpriv --pdeathsig KILL --)
  # Not in this script's process group: Ctrl-C is for the script, which stops them in order.
  set -m
  "${before[@]}" "$programs/$name" "$@" >>"$name.log" 2>&1 </dev/null &
  set +m
  pids+=($!)
  last=$!
}

# await NAME WHAT COMMAND...: until COMMAND succeeds, as long as the program that was started last lives.
await() {
  local name=$1 what=$2 deadline=$((SECONDS + patience))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$last" 2>/dev/null; then
      tail -n 20 "$name.log" >&2
      fail "$name ended before $what: its last lines are above"
    fi
    if ((SECONDS > deadline)); then
      tail -n 20 "$name.log" >&2
      fail "after $patience s not yet: $what. The last lines of $name are above"
    fi
    sleep 0.1
  done
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

[[ -f port ]] || echo $((20000 + RANDOM % 10000)) >port
port=$(<port)
until port_is_free "$port"; do
  port=$((20000 + RANDOM % 10000))
  echo "$port" >port
done
server=https://127.0.0.1:$port

if [[ ! -f tokens.csv ]]; then
  {
    openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=control-plane \
      -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=kube-apiserver \
      -keyout server.key -out server.csr
    cat >server.ext <<EOF
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, DNS:kubernetes.default.svc.cluster.local
EOF
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile server.ext -out server.crt
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out service-accounts.key
    openssl pkey -in service-accounts.key -pubout -out service-accounts.pub
  } 2>openssl.out || fail "openssl makes no keys: $(tail -n 3 openssl.out)"
  for user in admin:system:masters system:kube-controller-manager system:kube-scheduler; do
    group=${user#admin:}
    [[ $user == admin:* ]] || group=
    printf '%s,%s,%s,"%s"\n' "$(openssl rand -hex 24)" "${user%:system:masters}" "${user%:system:masters}" "$group"
  done >tokens.csv.new
  mv tokens.csv.new tokens.csv
fi

# kubeconfig USER FILE
kubeconfig() {
  local token
  token=$(awk -F, -v user="$1" '$2 == user { print $1 }' tokens.csv)
  cat >"$2" <<EOF
apiVersion: v1
kind: Config
current-context: control-plane
contexts:
- name: control-plane
  context: { cluster: control-plane, user: "$1" }
clusters:
- name: control-plane
  cluster:
    server: $server
    certificate-authority-data: $(openssl base64 -A -in ca.crt)
users:
- name: "$1"
  user: { token: $token }
EOF
}
kubeconfig admin kubeconfig
kubeconfig system:kube-controller-manager controller-manager.kubeconfig
kubeconfig system:kube-scheduler scheduler.kubeconfig
printf 'cacert = "ca.crt"\nheader = "Authorization: Bearer %s"\nsilent\nfail\nnoproxy = "*"\n' \
  "$(awk -F, '$2 == "admin" { print $1 }' tokens.csv)" >curlrc

# Sockets instead of ports: nobody else on the machine gets at the store. Their names are relative because a socket's path
# has to be short. What is stored is not worth waiting for the disk.
rm -f client:0 peer:0
start etcd --name control-plane --data-dir etcd --unsafe-no-fsync --log-level warn \
  --listen-client-urls unix://client:0 --advertise-client-urls unix://client:0 \
  --listen-peer-urls unix://peer:0 --initial-advertise-peer-urls unix://peer:0 \
  --initial-cluster control-plane=unix://peer:0
await etcd "etcd listens" test -S client:0

# Nobody makes ServiceAccounts then, and pods would be refused for want of them.
admission=()
$controllers || admission=(--disable-admission-plugins ServiceAccount)
# Endpoints may not be on the loopback interface, so the Service `kubernetes` has none.
start kube-apiserver --etcd-servers unix://client:0 --bind-address 127.0.0.1 --secure-port "$port" \
  --advertise-address 127.0.0.1 --endpoint-reconciler-type none --service-cluster-ip-range "$services" \
  --tls-cert-file server.crt --tls-private-key-file server.key \
  --token-auth-file tokens.csv --authorization-mode RBAC --allow-privileged \
  --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-account-key-file service-accounts.pub --service-account-signing-key-file service-accounts.key "${admission[@]}"
await kube-apiserver "kube-apiserver is ready" curl -K curlrc "$server/readyz"

if $controllers; then
  start kube-scheduler --kubeconfig scheduler.kubeconfig --leader-elect=false --secure-port 0
  start kube-controller-manager --kubeconfig controller-manager.kubeconfig --leader-elect=false --secure-port 0 \
    --use-service-account-credentials --service-account-private-key-file service-accounts.key --root-ca-file ca.crt
  await kube-controller-manager "the default namespace has its ServiceAccount" \
    curl -K curlrc "$server/api/v1/namespaces/default/serviceaccounts/default"
fi
say "Kubernetes $(curl -K curlrc "$server/version" | sed -n 's/.*"gitVersion": "\(.*\)".*/\1/p') at $server, logs in $data"

if (($# > 0)); then
  code=0
  (cd "$caller" && KUBECONFIG=$data/kubeconfig "$@") || code=$?
  exit "$code"
fi
printf '%s\n' "$data/kubeconfig"
reader=
if $until_stdin_closes; then
  # A background job reads from nowhere unless told otherwise.
  exec 3<&0
  cat <&3 >/dev/null &
  reader=$!
fi
wait -n "${pids[@]}" $reader || true
if [[ -n $reader ]] && ! kill -0 "$reader" 2>/dev/null; then exit; fi
[[ -z $reader ]] || kill "$reader"
for log in *.log; do
  printf '%s:\n%s\n' "$log" "$(tail -n 5 "$log")" >&2
done
fail "one of the programs has ended: the last lines of their logs are above"
