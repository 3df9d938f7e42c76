//! The numbers of the architecture, where they are.

use serde_json::{Value, json};

use crate::{Rendered, environments, fleet, render};

fn assert_all(rendered: &Rendered, kind: &str, name: &str, expected: &[(&str, Value)]) {
    let object = rendered.get(kind, name);
    for (pointer, value) in expected {
        let found = object.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(found, value, "{}: {kind} {name}: {pointer}", rendered.path);
    }
}

/// The Deployments with requests, limits, port, smallest and largest number of pods, and the autoscaler's targets.
const ROLES: [Role; 2] = [
    Role {
        name: "backend",
        requests: ["100m", "128Mi"],
        limits: ["500m", "512Mi"],
        port: 5000,
        service_port: 5000,
        pods: [3, 10],
        targets: [70, 80],
    },
    Role {
        name: "frontend",
        requests: ["50m", "64Mi"],
        limits: ["250m", "256Mi"],
        port: 8080,
        service_port: 80,
        pods: [3, 8],
        targets: [75, 85],
    },
];

struct Role {
    name: &'static str,
    requests: [&'static str; 2],
    limits: [&'static str; 2],
    port: u16,
    service_port: u16,
    pods: [u8; 2],
    targets: [u8; 2],
}

fn amounts([cpu, memory]: [&str; 2]) -> Value {
    json!({"cpu": cpu, "memory": memory})
}

#[test]
fn deployments_have_their_resources_probes_and_strategy() {
    for path in ["dev", "staging", "prod"] {
        let environment = render(path);
        let fast = path == "dev";
        for role in ROLES {
            let name = format!("dhakacart-{}", role.name);
            let pod = "/spec/template/spec";
            let container = |field: &str| format!("{pod}/containers/0/{field}");
            let expected = [
                (
                    "/spec/strategy",
                    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
                ),
                ("/spec/selector/matchLabels", json!({"app": role.name})),
                (&container("resources/requests"), amounts(role.requests)),
                (&container("resources/limits"), amounts(role.limits)),
                (&container("ports/0/containerPort"), json!(role.port)),
                (&container("livenessProbe/httpGet/path"), json!("/health")),
                (&container("livenessProbe/periodSeconds"), json!(if fast { 1 } else { 10 })),
                (&container("readinessProbe/httpGet/path"), json!("/ready")),
                (&container("readinessProbe/periodSeconds"), json!(if fast { 1 } else { 5 })),
                (&container("securityContext/readOnlyRootFilesystem"), json!(true)),
                (&format!("{pod}/securityContext/runAsNonRoot"), json!(true)),
            ];
            assert_all(
                &environment,
                "Deployment",
                &name,
                &expected.map(|(pointer, value)| (pointer as &str, value)),
            );
            let image = environment.get("Deployment", &name).pointer(&container("image")).unwrap();
            assert!(
                image.as_str().unwrap().starts_with(&format!("ghcr.io/dhakacart/{}:v", role.name)),
                "{image}"
            );
            assert_all(
                &environment,
                "Service",
                &format!("{name}-service"),
                &[
                    ("/spec/type", json!("ClusterIP")),
                    ("/spec/ports/0/port", json!(role.service_port)),
                    ("/spec/selector", json!({"app": role.name})),
                ],
            );
            if path != "dev" || role.name != "backend" {
                let term = "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm";
                assert_all(
                    &environment,
                    "Deployment",
                    &name,
                    &[
                        (&format!("{term}/topologyKey"), json!("kubernetes.io/hostname")),
                        (&format!("{term}/labelSelector/matchLabels"), json!({"app": role.name})),
                    ],
                );
            }
        }
    }
}

#[test]
fn autoscalers_have_their_targets_and_speed() {
    for path in ["staging", "prod"] {
        let environment = render(path);
        for role in ROLES {
            let metric = |name: &str, target: u8| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": target}}});
            let policy = |kind: &str, value: u8| json!({"type": kind, "value": value, "periodSeconds": 15});
            assert_all(
                &environment,
                "HorizontalPodAutoscaler",
                &format!("{}-hpa", role.name),
                &[
                    ("/spec/scaleTargetRef/name", json!(format!("dhakacart-{}", role.name))),
                    ("/spec/minReplicas", json!(role.pods[0])),
                    ("/spec/maxReplicas", json!(role.pods[1])),
                    (
                        "/spec/metrics",
                        json!([metric("cpu", role.targets[0]), metric("memory", role.targets[1])]),
                    ),
                    (
                        "/spec/behavior/scaleUp",
                        json!({
                            "stabilizationWindowSeconds": 0,
                            "selectPolicy": "Max",
                            "policies": [policy("Percent", 100), policy("Pods", 2)],
                        }),
                    ),
                    (
                        "/spec/behavior/scaleDown",
                        json!({
                            "stabilizationWindowSeconds": 300,
                            "selectPolicy": "Min",
                            "policies": [policy("Percent", 50), policy("Pods", 1)],
                        }),
                    ),
                ],
            );
        }
    }
    assert_eq!(render("dev").of_kind("HorizontalPodAutoscaler").count(), 0);
}

#[test]
fn the_ingress_sends_each_path_to_its_role() {
    for path in ["dev", "staging", "prod"] {
        let environment = render(path);
        let ingress = environment.get("Ingress", "dhakacart-ingress");
        assert_eq!(ingress["spec"]["ingressClassName"], "nginx");
        let rules: Vec<(&str, &str, u64)> = ingress["spec"]["rules"][0]["http"]["paths"]
            .as_array()
            .unwrap()
            .iter()
            .map(|path| {
                let service = &path["backend"]["service"];
                (
                    path["path"].as_str().unwrap(),
                    service["name"].as_str().unwrap(),
                    service["port"]["number"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            rules,
            [("/api", "dhakacart-backend-service", 5000), ("/", "dhakacart-frontend-service", 80)]
        );
    }
    let prod = render("prod");
    let ingress = prod.get("Ingress", "dhakacart-ingress");
    assert_eq!(ingress["spec"]["tls"][0]["hosts"][0], ingress["spec"]["rules"][0]["host"]);
    let issuer = ingress["metadata"]["annotations"]["cert-manager.io/issuer"].as_str().unwrap();
    prod.get("Issuer", issuer);
}

#[test]
fn the_network_is_that_of_the_architecture() {
    let infrastructure = render("infrastructure/prod");
    assert_all(&infrastructure, "VPC", "dhakacart", &[("/spec/cidrBlocks", json!(["10.0.0.0/16"]))]);
    for (kind, first) in [("public", 1), ("private", 2), ("database", 3)] {
        for (zone, network) in [("a", first), ("b", first + 10)] {
            assert_all(
                &infrastructure,
                "Subnet",
                &format!("dhakacart-{kind}-{zone}"),
                &[
                    ("/spec/cidrBlock", json!(format!("10.0.{network}.0/24"))),
                    ("/spec/availabilityZone", json!(format!("ap-southeast-1{zone}"))),
                    ("/spec/routeTableRefs/0/from/name", json!(format!("dhakacart-{kind}"))),
                ],
            );
        }
    }
    let route = "/spec/routes/0/destinationCIDRBlock";
    let everywhere = json!("0.0.0.0/0");
    let gateway = ("/spec/routes/0/gatewayRef/from/name", json!("dhakacart"));
    assert_all(&infrastructure, "RouteTable", "dhakacart-public", &[(route, everywhere.clone()), gateway]);
    let nat = ("/spec/routes/0/natGatewayRef/from/name", json!("dhakacart"));
    assert_all(&infrastructure, "RouteTable", "dhakacart-private", &[(route, everywhere), nat]);
    assert_all(&infrastructure, "RouteTable", "dhakacart-database", &[("/spec/routes", Value::Null)]);
}

/// What a security group lets in: protocol, first and last port, from where.
fn lets_in(infrastructure: &Rendered, group: &str) -> Vec<String> {
    let group = infrastructure.get("SecurityGroup", group);
    let rules = group["spec"]["ingressRules"].as_array().unwrap();
    let from = |rule: &Value| {
        if let Some(range) = rule["ipRanges"][0]["cidrIP"].as_str() {
            return range.to_owned();
        }
        let pair = &rule["userIDGroupPairs"][0];
        pair["groupRef"]["from"]["name"].as_str().unwrap_or("itself").to_owned()
    };
    rules
        .iter()
        .map(|rule| {
            format!(
                "{} {}-{} {}",
                rule["ipProtocol"].as_str().unwrap(),
                rule["fromPort"],
                rule["toPort"],
                from(rule)
            )
        })
        .collect()
}

#[test]
fn security_groups_let_in_what_the_architecture_lists() {
    let infrastructure = render("infrastructure/prod");
    assert_eq!(
        lets_in(&infrastructure, "dhakacart-internet"),
        ["tcp 80-80 0.0.0.0/0", "tcp 443-443 0.0.0.0/0"]
    );
    assert_eq!(
        lets_in(&infrastructure, "dhakacart-nodes"),
        [
            "tcp 22-22 203.0.113.0/24",
            "tcp 6443-6443 10.0.0.0/16",
            "tcp 1024-65535 itself",
            "udp 1024-65535 itself",
            "tcp 1024-65535 dhakacart-internet",
        ]
    );
    assert_eq!(lets_in(&infrastructure, "dhakacart-database"), ["tcp 5432-5432 dhakacart-nodes"]);
    let everything = ("/spec/egressRules/0/ipProtocol", json!("-1"));
    for (group, out) in [
        ("dhakacart-internet", everything.clone()),
        ("dhakacart-nodes", everything),
        ("dhakacart-database", ("/spec/egressRules", Value::Null)),
    ] {
        assert_all(&infrastructure, "SecurityGroup", group, &[out]);
    }
}

#[test]
fn the_database_is_that_of_the_architecture() {
    let expected = [
        ("/spec/engine", json!("postgres")),
        ("/spec/engineVersion", json!("14")),
        ("/spec/allocatedStorage", json!(20)),
        ("/spec/storageType", json!("gp2")),
        ("/spec/storageEncrypted", json!(true)),
        ("/spec/kmsKeyRef/from/name", json!("dhakacart")),
        ("/spec/multiAZ", json!(true)),
        ("/spec/publiclyAccessible", json!(false)),
        ("/spec/backupRetentionPeriod", json!(7)),
        ("/spec/monitoringInterval", json!(60)),
        ("/spec/vpcSecurityGroupRefs/0/from/name", json!("dhakacart-database")),
    ];
    let (development, prod) = (render("infrastructure/base"), render("infrastructure/prod"));
    for infrastructure in [&development, &prod] {
        assert_all(infrastructure, "DBInstance", "dhakacart", &expected);
        let forced = ("/spec/parameterOverrides/rds.force_ssl", json!("1"));
        assert_all(infrastructure, "DBParameterGroup", "dhakacart-postgres14", &[forced]);
    }
    let class = "/spec/dbInstanceClass";
    assert_all(&development, "DBInstance", "dhakacart", &[(class, json!("db.t3.micro"))]);
    assert_all(&prod, "DBInstance", "dhakacart", &[(class, json!("db.t3.medium"))]);
    for (name, metric, comparison, threshold) in [
        ("cpu", "CPUUtilization", "GreaterThanThreshold", json!(80)),
        // A fifth of 20 GiB is free.
        ("storage", "FreeStorageSpace", "LessThanThreshold", json!((20_u64 << 30) / 5)),
        ("connections", "DatabaseConnections", "GreaterThanThreshold", json!(320)),
    ] {
        assert_all(
            &prod,
            "MetricAlarm",
            &format!("dhakacart-database-{name}"),
            &[
                ("/spec/metricName", json!(metric)),
                ("/spec/comparisonOperator", json!(comparison)),
                ("/spec/threshold", threshold),
                ("/spec/dimensions/0/value", json!("dhakacart")),
            ],
        );
    }
}

#[test]
fn what_holds_data_is_never_pruned() {
    let infrastructure = render("infrastructure/prod");
    for (kind, name) in [("VPC", "dhakacart"), ("Key", "dhakacart"), ("DBInstance", "dhakacart")] {
        let annotations = &infrastructure.get(kind, name)["metadata"]["annotations"];
        assert_eq!(annotations["holdfast.dev/prune"], "disabled", "{kind}");
        assert_eq!(annotations["services.k8s.aws/deletion-policy"], "retain", "{kind}");
    }
}

#[test]
fn releases_are_held_to_the_targets() {
    let fleet = fleet();
    for name in ["staging", "prod"] {
        let gates = fleet[name]["spec"]["rollout"]["gates"].as_array().unwrap();
        for (gate, max) in [("error-rate", 0.01), ("p95-seconds", 0.2)] {
            let gate = gates.iter().find(|found| found["name"] == gate).unwrap();
            assert_eq!(gate["max"], json!(max), "{name}");
            assert!(
                gate["query"]["promql"].as_str().unwrap().contains(&format!("dhakacart-{name}")),
                "{name}"
            );
        }
    }
    assert_eq!(fleet["prod"]["spec"]["rollout"]["windows"].as_array().unwrap().len(), 1);
    assert_eq!(fleet["prod"]["spec"]["rollout"]["approval"]["required"], true);
    for (name, environment) in &fleet {
        assert!(environment["spec"]["notify"][0]["slack"].is_object(), "nobody is told of {name}");
    }
    assert_eq!(environments().len(), fleet.len() + 1, "each environment has a folder of its own");
}
