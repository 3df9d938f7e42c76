#!/usr/bin/env python3
"""What check.sh needs beside promtool and amtool.

    check.py tests RULES TESTS          fails unless every alert of RULES is expected to fire by a test of TESTS
    check.py without-discovery FILE     prints Prometheus' configuration with fixed targets for discovered ones
    check.py dashboards FOLDER          prints the dashboards' expressions as a file of rules
    check.py gates FLEET                prints the PromQL of the fleet's gates as a file of rules
    check.py metrics FOLDER RULES ROOT  fails unless every metric of the shop and of Holdfast that a dashboard or a
                                        rule names is written by the program under ROOT
"""
import json, pathlib, re, sys


def fail(message):
    sys.exit(f"check.py: {message}")


def tests(rules, folder):
    """Text suffices: both formats are our own files, and promtool has read them as YAML before."""
    alerts = set()
    for path in pathlib.Path(rules).glob("*.yaml"):
        alerts |= set(re.findall(r"^\s+- alert: (\w+)$", path.read_text(), re.M))
    fired = set()
    for path in pathlib.Path(folder).glob("*.yaml"):
        fired |= set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+(?:#.*\n\s+)?- exp_labels", path.read_text()))
    if not alerts or alerts - fired:
        fail(f"no test lets these alerts fire: {', '.join(sorted(alerts - fired)) or 'there are no alerts'}")
    print(f"{len(alerts)} alerts, each with a test that lets it fire")


def without_discovery(path):
    text = pathlib.Path(path).read_text()
    roles = re.findall(r"kubernetes_sd_configs:\n\s+- role: (\w+)\n", text)
    if len(roles) != text.count("kubernetes_sd_configs:"):
        fail(f"{path}: a kubernetes_sd_configs is not one role alone")
    for role in roles:
        if role not in ("node", "pod", "service", "endpoints", "endpointslice", "ingress"):
            fail(f"{path}: Kubernetes' discovery has no role {role}")
    print(re.sub(r"kubernetes_sd_configs:\n(\s+)- role: \w+\n", r"static_configs:\n\1- targets: [a:1]\n", text))


def expressions(folder):
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        board = json.loads(path.read_text())
        ids, uid = set(), board["uid"]
        if path.stem != uid:
            fail(f"{path}: its uid is {uid}; links to it would break when the file is renamed")
        for panel in board["panels"]:
            if panel["id"] in ids:
                fail(f"{path}: two panels have the id {panel['id']}")
            ids.add(panel["id"])
            if panel["type"] != "row" and not panel["targets"]:
                fail(f"{path}: the panel {panel['title']} asks for nothing")
            for target in panel.get("targets", []):
                if target["datasource"]["uid"] != "prometheus":
                    fail(f"{path}: {panel['title']} asks {target['datasource']['uid']}, which is not provisioned")
                yield f"{uid}/{panel['title']}", target["expr"]
        for annotation in board["annotations"]["list"]:
            yield f"{uid}/{annotation['name']}", annotation["expr"]


def dashboards(folder):
    rules = []
    for number, (_, expr) in enumerate(expressions(folder)):
        expr = expr.replace("$__rate_interval", "1m").replace("$namespace", "x").replace("$environment", "x")
        if re.search(r"\$\w+", expr.replace("$1", "")):
            fail(f"an unknown variable in {expr}")
        rules.append({"record": f"dashboard:{number}", "expr": expr})
    # JSON is YAML.
    print(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))


def gates(folder):
    found = []
    for path in sorted(pathlib.Path(folder).glob("*.yaml")):
        found += re.findall(r"^ +promql: '(.*)'$", path.read_text(), re.M)
    if len(found) < 4:
        fail(f"{folder}: only {len(found)} gates ask Prometheus")
    rules = [{"record": f"gate:{number}", "expr": expr} for number, expr in enumerate(found)]
    print(json.dumps({"groups": [{"name": "gates", "rules": rules}]}))


def metrics(folder, rules, root):
    root = pathlib.Path(root)
    # Wherever in its program the module is, as one file or a folder.
    shop = "".join(path.read_text() for path in (root / "webservice/src").rglob("*.rs") if "metrics" in str(path))
    agent = (root / "agent/src/telemetry/metrics.rs").read_text()
    recorded, alerting = set(), []
    for path in pathlib.Path(rules).glob("*.yaml"):
        text = path.read_text()
        recorded |= set(re.findall(r"record: (\S+)", text))
        alerting.append((path.name, "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))))
    checked = 0
    for place, expr in list(expressions(folder)) + alerting:
        for name in set(re.findall(r"\b(?:holdfast|dhakacart|http)_[a-z_]+", expr)):
            if re.search(rf":{name}|{name}:", expr):
                continue  # a part of a recorded name
            stem = re.sub(r"_(bucket|count|sum)$", "", name) if "seconds" in name else name
            if stem.startswith("holdfast_"):
                # The registry adds the prefix, counters their suffix, and `build` is an info.
                stem = re.sub(r"_(total|info)$", "", stem.removeprefix("holdfast_"))
                known = f'"{stem}"' in agent
            else:
                known = f'"{stem}"' in shop
            if not known:
                fail(f"{place} asks for {name}, which no program writes")
            checked += 1
        for name in re.findall(r"\b(?:app|pod|node):\w+:\w+", expr):
            if name not in recorded:
                fail(f"{place} asks for {name}, which no rule records")
            checked += 1
    print(f"{checked} uses of the programs' metrics and recorded ones, each of them known")


COMMANDS = {"tests": tests, "without-discovery": without_discovery, "dashboards": dashboards, "gates": gates, "metrics": metrics}
if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
    sys.exit(__doc__)
COMMANDS[sys.argv[1]](*sys.argv[2:])
