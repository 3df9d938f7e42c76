#!/usr/bin/env bash
# Checks Prometheus' configuration, rules and their unit tests, Alertmanager's configuration, and every expression
# of the dashboards. Needs python3, promtool and amtool (Debian: apt-get install prometheus prometheus-alertmanager).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
for tool in python3 promtool amtool; do
  command -v "$tool" >/dev/null || {
    echo "check.sh: $tool is not installed (Debian: apt-get install python3 prometheus prometheus-alertmanager)" >&2
    exit 2
  }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== rules"
promtool check rules base/prometheus/rules/*.yaml
# gates.yaml is for the rules that are made below.
mapfile -t tests < <(find tests -name '*.yaml' ! -name gates.yaml | sort)
promtool test rules "${tests[@]}"

echo "== every alert has a unit test"
python3 check.py tests base/prometheus/rules tests

echo "== configuration of Prometheus"
# Debian builds promtool without Kubernetes' service discovery: there that part is held against its roles alone, and
# promtool reads the rest.
if ! said=$(promtool check config --syntax-only base/prometheus/prometheus.yaml 2>&1); then
  [[ $said == *"field kubernetes_sd_configs not found"* ]] || { echo "$said" >&2; exit 1; }
  python3 check.py without-discovery base/prometheus/prometheus.yaml >"$work/prometheus.yaml"
  said=$(promtool check config --syntax-only "$work/prometheus.yaml" 2>&1) || { echo "$said" >&2; exit 1; }
fi
echo "$said"

echo "== configuration of Alertmanager"
sed "s|/etc/alertmanager/|$PWD/base/alertmanager/|" base/alertmanager/alertmanager.yaml >"$work/alertmanager.yaml"
amtool check-config "$work/alertmanager.yaml"
# Who is told: a page and a ticket reach their own channel.
for severity in page ticket; do
  receiver=$(amtool config routes test --config.file="$work/alertmanager.yaml" "severity=$severity" alertname=Any)
  [[ $receiver == "${severity}s" ]] || { echo "severity $severity goes to $receiver, not to ${severity}s" >&2; exit 1; }
  echo "severity=$severity -> $receiver"
done

echo "== dashboards"
python3 check.py dashboards base/grafana/dashboards >"$work/dashboards.yaml"
promtool check rules "$work/dashboards.yaml"
python3 check.py metrics base/grafana/dashboards base/prometheus/rules ../..

echo "== gates of the fleet"
python3 check.py gates ../fleet >"$work/gates.yaml"
promtool check rules "$work/gates.yaml"
cp tests/gates.yaml "$work/gates-test.yaml"
promtool test rules "$work/gates-test.yaml"
echo "monitoring: everything passed"
