#!/usr/bin/env python3
"""Derives types.txt from a Kubernetes API server's OpenAPI v3 documents.

Usage: derive.py FOLDER > types.txt, where FOLDER holds one JSON document per group-version, as
`kubectl get --raw /openapi/v3/apis/apps/v1` prints them.
"""
import glob
import json
import sys

schemas, scopes = {}, {}
for path in sorted(glob.glob(sys.argv[1] + "/*.json")):
    document = json.load(open(path))
    schemas.update(document["components"]["schemas"])
    for url, operations in document["paths"].items():
        parts = url.strip("/").split("/")
        version, rest = ("/".join(parts[1:3]), parts[3:]) if parts[0] == "apis" else (parts[1], parts[2:])
        if rest[:1] == ["watch"] or "{name}" in rest or not rest:
            continue
        namespaced = rest[:2] == ["namespaces", "{namespace}"]
        for operation in operations.values():
            # A whole server's document says x-kubernetes-group-version-kind, an abridged one only the kind.
            kind = operation.get("x-kubernetes-group-version-kind", operation)["kind"]
            if namespaced:
                scopes[version, kind] = "namespaced"
            else:
                scopes.setdefault((version, kind), "cluster")


def target(schema):
    """The name of the schema that this one refers to."""
    if "$ref" in schema:
        return schema["$ref"].split("/")[-1]
    if len(schema.get("allOf", [])) == 1:
        return target(schema["allOf"][0])
    return None


def short(name):
    return ".".join(name.split(".")[-3:])


def fields(name):
    rows = []
    for field, schema in sorted(schemas[name].get("properties", {}).items()):
        options = []
        if "x-kubernetes-map-type" in schema:
            options.append("map=" + schema["x-kubernetes-map-type"])
        if schema.get("type") == "array":
            kind, ref = "list", target(schema["items"])
            for option, extension in (("list", "x-kubernetes-list-type"), ("keys", "x-kubernetes-list-map-keys"),
                                      ("merge", "x-kubernetes-patch-merge-key"), ("strategy", "x-kubernetes-patch-strategy")):
                value = schema.get(extension)
                if value:
                    options.append(option + "=" + (",".join(value) if isinstance(value, list) else value))
        elif isinstance(schema.get("additionalProperties"), dict):
            kind, ref = "values", target(schema["additionalProperties"])
        else:
            kind, ref = "object", target(schema)
            if schema.get("x-kubernetes-patch-strategy"):
                options.append("strategy=" + schema["x-kubernetes-patch-strategy"])
        if ref and schemas.get(ref, {}).get("x-kubernetes-map-type"):
            options.append("map=" + schemas[ref]["x-kubernetes-map-type"])
        rows.append((field, kind, ref, options))
    return rows


table = {name: fields(name) for name in schemas}
useful = {name for name, rows in table.items() if any(options for _, _, _, options in rows)}
while True:
    more = {name for name, rows in table.items() if any(ref in useful for _, _, ref, _ in rows)} - useful
    if not more:
        break
    useful |= more

kinds = []
for name, schema in schemas.items():
    for gvk in schema.get("x-kubernetes-group-version-kind", []):
        version = gvk["group"] + "/" + gvk["version"] if gvk["group"] else gvk["version"]
        if (version, gvk["kind"]) in scopes:
            kinds.append((version, gvk["kind"], scopes[version, gvk["kind"]], name))

used, queue = set(), [name for _, _, _, name in kinds]
while queue:
    name = queue.pop()
    if name in used or name not in useful:
        continue
    used.add(name)
    queue += [ref for _, _, ref, _ in table[name] if ref]

print("# What Kubernetes' OpenAPI v3 documents say about lists, maps, merge keys and scope. Derived by derive.py.")
for version, kind, scope, name in sorted(kinds):
    print("kind", version, kind, scope, short(name))
for name in sorted(used, key=short):
    print("type", short(name))
    for field, kind, ref, options in table[name]:
        ref = short(ref) if ref in used else "-"
        if options or ref != "-":
            print("", field, kind, ref, *options)
