#!/usr/bin/env python3
"""Derives `kubernetes.json`, the compact table that the API server reads its schema facts from.

    derive.py OPENAPI_DIR DISCOVERY_VECTOR GO_DIR... > kubernetes.json

OPENAPI_DIR       the OpenAPI v3 documents of the built-in group-versions, one file each
DISCOVERY_VECTOR  recorded answers to the discovery requests (resources, verbs, short names, categories)
GO_DIR            directories with the published Go types (k8s.io/api, apimachinery, apiextensions-apiserver,
                  kube-aggregator); they say what OpenAPI does not: which fields are pointers and which
                  are left out when empty, so that an answer has the fields that a real server gives it.

The table, by key:
  types      name -> {"f": {field: spec}, "a": 1 when atomic}
             spec = [type, emptiness, number, options?]
             type: s string, b bool, i int32, l int64, n number, y bytes, q quantity, x int-or-string,
                   t time, u micro time, a any, [T list, {T map, :Name struct
             emptiness: p pointer (kept when set), z left out when zero, e always there, n null when empty
             number: of the protobuf field, as "2", or "2.1" where Go embeds a struct; "" for none
             options: l list type, k map keys, m merge key, s patch strategy, d default, e enum, r required, A atomic map
  resources  group, version, resource, kind, scope, verbs, names, subresources, in discovery order
"""
import json, os, re, sys

openapi_dir, discovery, go_dirs = sys.argv[1], sys.argv[2], sys.argv[3:]


def short(name):
    name = name.split("/")[-1]
    for head in ("io.k8s.api.", "io.k8s.apimachinery.pkg.apis.", "io.k8s.apimachinery.pkg.",
                 "io.k8s.apiextensions-apiserver.pkg.apis.", "io.k8s.kube-aggregator.pkg.apis."):
        if name.startswith(head):
            return name[len(head):]
    return name


SPECIAL = {
    "api.resource.Quantity": "q", "util.intstr.IntOrString": "x", "meta.v1.Time": "t", "meta.v1.MicroTime": "u",
    "runtime.RawExtension": "a", "meta.v1.FieldsV1": "a", "meta.v1.Patch": "a",
    "apiextensions.v1.JSON": "a", "apiextensions.v1.JSONSchemaProps": "a",
    "apiextensions.v1.JSONSchemaPropsOrArray": "a", "apiextensions.v1.JSONSchemaPropsOrBool": "a",
    "apiextensions.v1.JSONSchemaPropsOrStringArray": "a",
}


def read_go():
    """(package, struct) -> [(json name, go type, flags, embedded)]"""
    structs = {}
    for base in go_dirs:
        for folder, _, files in os.walk(base):
            for file in files:
                if not file.endswith(".go") or file.endswith("_test.go") or file.startswith("zz_"):
                    continue
                parts = folder.rstrip("/").split("/")
                package = ".".join(parts[-2:])
                text = open(os.path.join(folder, file)).read()
                for match in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", text, re.S | re.M):
                    fields = []
                    for line in match.group(2).split("\n"):
                        line = line.strip()
                        m = re.match(r'(?:(\w+)\s+)?([\w\.\*\[\]]+)\s+`([^`]*)`', line)
                        if not m or line.startswith("//"):
                            continue
                        tag = re.search(r'json:"([^"]*)"', m.group(3))
                        if not tag:
                            continue
                        name, *flags = tag.group(1).split(",")
                        fields.append((name, m.group(2), flags, m.group(1) is None or "inline" in flags))
                    structs[(package, match.group(1))] = fields
    return structs


GO = read_go()


def read_proto():
    """(package, message) -> {field: (number, type)}"""
    messages = {}
    for base in go_dirs:
        for folder, _, files in os.walk(base):
            if "generated.proto" in files:
                package = ".".join(folder.rstrip("/").split("/")[-2:])
                text = open(os.path.join(folder, "generated.proto")).read()
                for match in re.finditer(r"^message (\w+) \{\n(.*?)^\}", text, re.S | re.M):
                    fields = re.findall(r"^  (?:optional|repeated)? ?(map<[^>]*>|[\w\.]+) (\w+) = (\d+);", match.group(2), re.M)
                    messages[(package, match.group(1))] = {name: (number, kind) for kind, name, number in fields}
    return messages


PROTO = read_proto()


def proto_numbers(package, message, known, prefix=""):
    """JSON field -> number, through embedded structs"""
    out = {}
    for name, (number, kind) in PROTO.get((package, message), {}).items():
        # Some names are spelled as in Go: `Webhooks`, `uID`.
        same = [k for k in known if k.lower() == name.lower()]
        if same:
            out[same[0]] = prefix + number
        else:
            parts = kind.split(".")
            inner = ".".join(parts[-3:-1]) if len(parts) > 2 else package
            for key, value in proto_numbers(inner, parts[-1], known, prefix + number + ".").items():
                out.setdefault(key, value)
    return out


def go_fields(package, struct):
    out = {}
    for name, kind, flags, embedded in GO.get((package, struct), []):
        if embedded and not name:
            inner = kind.lstrip("*").split(".")
            if inner[-1] in ("TypeMeta",):
                continue
            for key, value in go_fields(package, inner[-1]).items():
                out.setdefault(key, value)
        else:
            out[name] = (kind, flags)
    return out


schemas = {}
for file in sorted(os.listdir(openapi_dir)):
    schemas.update(json.load(open(os.path.join(openapi_dir, file)))["components"]["schemas"])


def type_of(node):
    ref = node.get("$ref") or (node["allOf"][0].get("$ref") if "allOf" in node else None)
    if ref:
        name = short(ref)
        return SPECIAL.get(name, ":" + name)
    kind = node.get("type")
    if kind == "array":
        return "[" + type_of(node["items"])
    if kind == "object":
        inner = node.get("additionalProperties")
        return "{" + type_of(inner) if inner else "a"
    form = node.get("format")
    return {"string": "y" if form == "byte" else "s", "boolean": "b",
            "integer": "l" if form == "int64" else "i", "number": "n"}.get(kind, "a")


def emptiness(kind, go, default, required):
    """How Go writes the field when it is unset."""
    if go is None:
        if kind[0] in "[{":
            return "n" if required else "z"
        return "e" if default in ("", 0, False, {}) and default is not None else "p"
    go_type, flags = go
    omit = "omitempty" in flags
    if go_type.startswith("*"):
        return "p" if omit else "n"
    if kind[0] in "[{y":
        return "z" if omit else "n"
    if kind in "tu":
        return "z" if "omitzero" in flags else "n"
    if kind[0] == ":":
        return "z" if "omitzero" in flags else "e"
    if kind in "qxa":
        return "p"
    return "z" if omit else "e"


types, missing = {}, []
for name in sorted(schemas):
    schema = schemas[name]
    label = short(name)
    if label in SPECIAL or "properties" not in schema or label.endswith("List") and "items" in schema["properties"]:
        if label == "apiextensions.v1.CustomResourceSubresourceStatus":
            types[label] = {"f": {}}
        continue
    package, struct = label.rsplit(".", 1)
    go = go_fields(package, struct)
    if not go and schema["properties"]:
        missing.append(label)
    fields = {}
    numbers = proto_numbers(package, struct, set(schema["properties"]))
    required = schema.get("required", [])
    for field, node in schema["properties"].items():
        if field in ("apiVersion", "kind") and "x-kubernetes-group-version-kind" in schema:
            continue
        kind = type_of(node)
        options = {}
        if node.get("x-kubernetes-list-type") and node["x-kubernetes-list-type"] != "atomic":
            options["l"] = node["x-kubernetes-list-type"]
        if node.get("x-kubernetes-list-map-keys"):
            options["k"] = node["x-kubernetes-list-map-keys"]
        if node.get("x-kubernetes-patch-merge-key"):
            options["m"] = node["x-kubernetes-patch-merge-key"]
        if node.get("x-kubernetes-patch-strategy"):
            options["s"] = node["x-kubernetes-patch-strategy"]
        if node.get("x-kubernetes-map-type") == "atomic":
            options["A"] = 1
        default = node.get("default")
        if default not in (None, "", 0, False, {}):
            options["d"] = default
        if "enum" in node:
            options["e"] = node["enum"]
        if field in required:
            options["r"] = 1
        spec = [kind, emptiness(kind, go.get(field), default, field in required),
                numbers.get(field, "")]
        fields[field] = spec + [options] if options else spec
    entry = {"f": fields}
    if schema.get("x-kubernetes-map-type") == "atomic":
        entry["a"] = 1
    types[label] = entry

steps = json.load(open(discovery))["steps"]
answers = {s["request"]["path"] + ("#v2" if s["request"].get("headers") else ""): s["response"]["body"]
           for s in steps if "request" in s}
by_kind = {}
for name, schema in schemas.items():
    for gvk in schema.get("x-kubernetes-group-version-kind", []):
        if not gvk["kind"].endswith("List"):
            by_kind.setdefault((gvk["group"], gvk["version"], gvk["kind"]), short(name))
resources = []
for group in answers["/api#v2"]["items"] + answers["/apis#v2"]["items"]:
    for version in group["versions"]:
        for r in version["resources"]:
            g, v = group["metadata"].get("name", ""), version["version"]
            kind = r["responseKind"]["kind"]
            item = {"g": g, "v": v, "r": r["resource"], "k": kind, "n": r["scope"] == "Namespaced",
                    "verbs": r["verbs"], "one": r["singularResource"]}
            if by_kind.get((g, v, kind)):
                item["t"] = by_kind[(g, v, kind)]
            for key, source in (("short", "shortNames"), ("cat", "categories")):
                if r.get(source):
                    item[key] = r[source]
            if r.get("subresources"):
                item["sub"] = [[s["subresource"], s["responseKind"]["kind"], s["responseKind"]["group"],
                                s["responseKind"]["version"], s["verbs"]] for s in r["subresources"]]
            resources.append(item)

print("no Go type for:", ", ".join(missing), file=sys.stderr)
out = ['{"types":{']
out.append(",\n".join(json.dumps(k) + ":" + json.dumps(v, separators=(",", ":")) for k, v in types.items()))
out.append('},"resources":[')
out.append(",\n".join(json.dumps(r, separators=(",", ":")) for r in resources))
out.append("]}")
print("\n".join(out))
