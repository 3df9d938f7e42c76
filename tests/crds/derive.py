#!/usr/bin/env python3
"""Derives `definitions.json`, the custom resources that the environments use, for a server that has no controllers.

    derive.py FILE... > definitions.json

FILE   CustomResourceDefinitions as their projects publish them: of AWS Controllers for Kubernetes
       (config/crd/bases of its *-controller repositories, and config/crd/common/bases), External Secrets
       (config/crds/bases) and cert-manager (deploy/crds).

The definitions here are of the controllers ec2 1.20.0, rds 1.11.1, kms 1.4.1, secretsmanager 1.4.1, cloudwatch 1.8.1 and
iam 1.8.1, External Secrets' chart 2.9.0 and cert-manager 1.21.

What can be wrong in a manifest stays: names of fields, types, what is required, enumerations, limits, rules. Left out are
descriptions, the status, versions that are not stored, and the branches of a schema that we do not use and that would be
most of the file (PRUNED): a manifest that uses one of them is refused, and this list is then what to change.
"""
import json, sys, yaml

KEPT = (
    "type", "format", "enum", "required", "default", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "oneOf", "anyOf", "allOf", "not", "nullable",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
)
# Kind and path -> the only fields that are kept there.
PRUNED = {
    ("SecretStore", "spec.provider"): {"aws"},
    ("SecretStore", "spec"): {"provider", "refreshInterval", "retrySettings"},
    ("Issuer", "spec"): {"acme", "selfSigned"},
    ("Issuer", "spec.acme"): {"server", "email", "privateKeySecretRef", "solvers", "preferredChain"},
    ("Issuer", "spec.acme.solvers"): {"http01", "selector"},
    ("Issuer", "spec.acme.solvers.http01"): {"ingress"},
    ("Issuer", "spec.acme.solvers.http01.ingress"): {"class", "ingressClassName", "name", "serviceType"},
}


def schema(kind, path, node):
    kept = {key: node[key] for key in KEPT if key in node}
    if "properties" in node:
        only = PRUNED.get((kind, path))
        kept["properties"] = {
            name: schema(kind, f"{path}.{name}".lstrip("."), field)
            for name, field in node["properties"].items()
            if only is None or name in only
        }
    if "items" in node:
        kept["items"] = schema(kind, path, node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = schema(kind, path, node["additionalProperties"])
    return kept


def definition(crd):
    spec = crd["spec"]
    kind = spec["names"]["kind"]
    stored = next(version for version in spec["versions"] if version["storage"])
    spec_schema = schema(kind, "spec", stored["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": crd["metadata"]["name"]},
        "spec": {
            "group": spec["group"],
            "names": {key: spec["names"][key] for key in ("kind", "listKind", "plural", "singular")},
            "scope": spec["scope"],
            "versions": [{
                "name": stored["name"],
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": spec_schema,
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                }}},
            }],
        },
    }


definitions = []
for path in sys.argv[1:]:
    with open(path) as file:
        definitions += [definition(crd) for crd in yaml.safe_load_all(file) if crd]
definitions.sort(key=lambda crd: crd["metadata"]["name"])
# One definition a line: a new version of one of them is then a change of its line.
print("[\n" + ",\n".join(json.dumps(crd, separators=(",", ":"), sort_keys=True) for crd in definitions) + "\n]")
