use serde_json::{Value, json};

use super::*;
use crate::object::Object;

#[test]
fn policies_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<PolicySet>();
    shared::<cel::Expression>();
}

fn object(value: Value) -> Object {
    Object::new(value).unwrap()
}

fn policy(spec: Value) -> (Object, String) {
    let value = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"}, "spec": spec,
    });
    (object(value), "p.yaml".to_owned())
}

fn binding(spec: Value) -> (Object, String) {
    let value = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "b"}, "spec": spec,
    });
    (object(value), "b.yaml".to_owned())
}

fn rules() -> Value {
    json!({"resourceRules": [{
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"],
    }]})
}

fn deployment(replicas: i64) -> Object {
    object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "backend", "namespace": "shop", "labels": {"app": "backend"}},
        "spec": {"replicas": replicas},
    }))
}

fn with(spec: Value, key: &str, value: Value) -> Value {
    let mut spec = spec;
    spec[key] = value;
    spec
}

fn small() -> Value {
    json!({
        "matchConstraints": rules(),
        "validations": [{"expression": "object.spec.replicas <= 3", "message": "at most 3"}],
    })
}

fn bound() -> Value {
    json!({"policyName": "p", "validationActions": ["Deny"]})
}

/// The messages about a Deployment of 5 replicas, each after its action.
fn messages(policy_spec: Value, binding_spec: Value) -> Vec<String> {
    let set = PolicySet::parse(&[policy(policy_spec), binding(binding_spec)]).unwrap();
    let violations = set.evaluate(&deployment(5), Operation::Create, None);
    violations.into_iter().map(|violation| format!("{:?}: {}", violation.action, violation.message)).collect()
}

#[test]
fn what_a_violation_says_and_does() {
    let validation = |validation: Value| with(small(), "validations", json!([validation]));
    let broken = "object.spec.nope == 1";
    let cases = [
        (small(), bound(), vec!["Deny: at most 3"]),
        (small(), with(bound(), "validationActions", json!(["Audit", "Warn"])), vec!["Warn: at most 3"]),
        (
            validation(json!({"expression": "object.spec.replicas < 3"})),
            bound(),
            vec!["Deny: failed expression: object.spec.replicas < 3"],
        ),
        (
            validation(json!({
                "expression": "object.spec.replicas < 3", "message": "m",
                "messageExpression": "'not ' + string(object.spec.replicas) + ' in ' + request.namespace",
            })),
            bound(),
            vec!["Deny: not 5 in shop"],
        ),
        (
            validation(json!({"expression": "false", "message": "written", "messageExpression": broken})),
            bound(),
            vec!["Deny: written"],
        ),
        (
            validation(json!({"expression": broken})),
            bound(),
            vec!["Deny: expression \"object.spec.nope == 1\" cannot be evaluated: no such key: nope"],
        ),
        (with(validation(json!({"expression": broken})), "failurePolicy", json!("Ignore")), bound(), vec![]),
        // A policy that nothing binds is not enforced: see below. Conditions decide whether it applies.
        (
            with(
                small(),
                "matchConditions",
                json!([{"name": "c", "expression": "object.metadata.name == 'other'"}]),
            ),
            bound(),
            vec![],
        ),
        (
            with(small(), "matchConditions", json!([{"name": "c", "expression": broken}])),
            bound(),
            vec!["Deny: expression \"object.spec.nope == 1\" cannot be evaluated: no such key: nope"],
        ),
        (
            with(
                validation(json!({"expression": "variables.twice < 9"})),
                "variables",
                json!([{"name": "n", "expression": "object.spec.replicas"}, {"name": "twice", "expression": "variables.n * 2"}]),
            ),
            bound(),
            vec!["Deny: failed expression: variables.twice < 9"],
        ),
        // A variable that fails is told where it is used, and only there.
        (
            with(small(), "variables", json!([{"name": "bad", "expression": broken}])),
            bound(),
            vec!["Deny: at most 3"],
        ),
        (
            with(
                validation(json!({"expression": "variables.worse"})),
                "variables",
                json!([{"name": "bad", "expression": broken}, {"name": "worse", "expression": "variables.bad"}]),
            ),
            bound(),
            vec!["Deny: expression \"object.spec.nope == 1\" cannot be evaluated: no such key: nope"],
        ),
        (
            validation(
                json!({"expression": "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] != 'shop' || oldObject != null || params != null"}),
            ),
            bound(),
            vec![
                "Deny: failed expression: namespaceObject.metadata.labels['kubernetes.io/metadata.name'] != 'shop' || oldObject != null || params != null",
            ],
        ),
    ];
    for (policy_spec, binding_spec, expected) in cases {
        assert_eq!(messages(policy_spec.clone(), binding_spec), expected, "{policy_spec}");
    }
    let unbound = PolicySet::parse(&[policy(small())]).unwrap();
    assert!(unbound.is_empty() && unbound.evaluate(&deployment(5), Operation::Create, None).is_empty());
}

#[test]
fn policies_apply_to_what_they_match() {
    let rule = |key: &str, value: Value| {
        let mut rules = rules();
        rules["resourceRules"][0][key] = value;
        rules
    };
    let selector = |which: &str, selector: Value| with(rules(), which, selector);
    let cases = [
        (rules(), true),
        (rule("apiGroups", json!(["*"])), true),
        (rule("apiGroups", json!([""])), false),
        (rule("resources", json!(["*"])), true),
        (rule("resources", json!(["*/*"])), true),
        (rule("resources", json!(["pods", "deployments/*"])), true),
        (rule("resources", json!(["deployments/scale"])), false),
        (rule("resources", json!(["pods"])), false),
        (rule("operations", json!(["*"])), true),
        (rule("operations", json!(["DELETE"])), false),
        (rule("apiVersions", json!(["v1beta1"])), true),
        (with(rule("apiVersions", json!(["v1beta1"])), "matchPolicy", json!("Exact")), false),
        (rule("resourceNames", json!(["backend"])), true),
        (rule("resourceNames", json!(["frontend"])), false),
        (rule("scope", json!("Namespaced")), true),
        (rule("scope", json!("Cluster")), false),
        (with(rules(), "excludeResourceRules", rules()["resourceRules"].clone()), false),
        (selector("objectSelector", json!({"matchLabels": {"app": "backend"}})), true),
        (selector("objectSelector", json!({"matchLabels": {"app": "frontend"}})), false),
        (
            selector(
                "objectSelector",
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["backend"]}]}),
            ),
            true,
        ),
        (
            selector(
                "objectSelector",
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["backend"]}]}),
            ),
            false,
        ),
        (
            selector(
                "objectSelector",
                json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
            ),
            false,
        ),
        (
            selector("objectSelector", json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})),
            true,
        ),
        (
            selector("namespaceSelector", json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}})),
            true,
        ),
        (selector("namespaceSelector", json!({"matchLabels": {"env": "prod"}})), false),
    ];
    for (constraints, expected) in cases {
        let by_policy = messages(with(small(), "matchConstraints", constraints.clone()), bound());
        assert_eq!(!by_policy.is_empty(), expected, "policy with {constraints}");
        let by_binding = messages(small(), with(bound(), "matchResources", constraints.clone()));
        assert_eq!(!by_binding.is_empty(), expected, "binding with {constraints}");
    }
    let labels = [("env".to_owned(), "prod".to_owned())].into();
    let selected = with(rules(), "namespaceSelector", json!({"matchLabels": {"env": "prod"}}));
    let set =
        PolicySet::parse(&[policy(with(small(), "matchConstraints", selected)), binding(bound())]).unwrap();
    assert_eq!(set.evaluate(&deployment(5), Operation::Update, Some(&labels)).len(), 1);
    assert_eq!(set.evaluate(&deployment(5), Operation::Delete, Some(&labels)).len(), 0);
}

#[test]
fn parameters_come_from_beside_the_policy() {
    let limit = |name: &str, namespace: &str, most: i64| {
        let value = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": {"limit": "yes"}}, "data": {"most": most},
        });
        (object(value), "params.yaml".to_owned())
    };
    let spec = with(
        with(small(), "paramKind", json!({"apiVersion": "v1", "kind": "ConfigMap"})),
        "validations",
        json!([{"expression": "object.spec.replicas <= params.data.most", "messageExpression": "'more than ' + string(params.data.most)"}]),
    );
    let run = |reference: Value| -> Vec<String> {
        let objects = [
            policy(spec.clone()),
            binding(with(bound(), "paramRef", reference)),
            limit("small", "shop", 2),
            limit("large", "shop", 9),
            limit("small", "other", 1),
        ];
        let set = PolicySet::parse(&objects).unwrap();
        set.evaluate(&deployment(5), Operation::Create, None)
            .into_iter()
            .map(|violation| violation.message)
            .collect()
    };
    assert_eq!(run(json!({"name": "small"})), ["more than 2"]);
    assert_eq!(run(json!({"name": "large"})), [""; 0]);
    assert_eq!(run(json!({"name": "small", "namespace": "other"})), ["more than 1"]);
    assert_eq!(run(json!({"selector": {"matchLabels": {"limit": "yes"}}})), ["more than 2"]);
    assert_eq!(
        run(json!({"name": "none", "parameterNotFoundAction": "Deny"})),
        ["the parameters of binding b do not exist"]
    );
    assert_eq!(run(json!({"name": "none", "parameterNotFoundAction": "Allow"})), [""; 0]);
}

#[test]
fn policies_that_are_not_understood_are_refused_by_file() {
    let cases = [
        (
            vec![policy(with(small(), "validatons", json!([])))],
            "p.yaml: ValidatingAdmissionPolicy p: spec: unknown field `validatons`",
        ),
        (vec![policy(Value::Null)], "p.yaml: ValidatingAdmissionPolicy p: spec:"),
        (
            vec![policy(with(small(), "validations", json!([{"expression": "a b"}])))],
            "p.yaml: policy p: expression \"a b\" cannot be read",
        ),
        (vec![policy(with(small(), "matchConstraints", json!({})))], "resourceRules is empty"),
        (vec![policy(small()), policy(small())], "p.yaml: there is another ValidatingAdmissionPolicy p"),
        (vec![binding(bound())], "b.yaml: binding b is for policy p, which does not exist here"),
        (
            vec![policy(small()), binding(with(bound(), "validationActions", json!(["Refuse"])))],
            "unknown variant `Refuse`",
        ),
    ];
    for (objects, expected) in cases {
        let error = PolicySet::parse(&objects).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}

#[test]
fn kinds_have_their_plural() {
    let kinds = [
        "Deployment",
        "Endpoints",
        "EndpointSlice",
        "Ingress",
        "IngressClass",
        "NetworkPolicy",
        "Gateway",
        "Proxy",
        "StorageClass",
        "HorizontalPodAutoscaler",
        "CSIDriver",
    ];
    let plurals = kinds.map(plural);
    assert_eq!(
        plurals,
        [
            "deployments",
            "endpoints",
            "endpointslices",
            "ingresses",
            "ingressclasses",
            "networkpolicies",
            "gateways",
            "proxies",
            "storageclasses",
            "horizontalpodautoscalers",
            "csidrivers"
        ]
    );
    let definition = object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "mice.example.com"},
        "spec": {"group": "example.com", "names": {"kind": "Mouse", "plural": "mice"}},
    }));
    let spec = json!({
        "matchConstraints": {"resourceRules": [{"apiGroups": ["example.com"], "operations": ["*"], "resources": ["mice"]}]},
        "validations": [{"expression": "false"}],
    });
    let mut set = PolicySet::parse(&[policy(spec), binding(bound())]).unwrap();
    let mouse = object(json!({"apiVersion": "example.com/v1", "kind": "Mouse", "metadata": {"name": "m"}}));
    assert_eq!(set.evaluate(&mouse, Operation::Create, None).len(), 0);
    set.learn_kinds(&[definition]);
    assert_eq!(set.evaluate(&mouse, Operation::Create, None).len(), 1);
}
