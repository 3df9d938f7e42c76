//! Whether what may run fits into what it may take.

use serde_json::Value;

use crate::{Rendered, environments};

/// A quantity in thousandths of its unit: `500m`, `2`, `128Mi`.
fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no quantity"));
    let (number, factor) = [("m", 1), ("Ki", 1000 << 10), ("Mi", 1000 << 20), ("Gi", 1000 << 30)]
        .into_iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, factor)))
        .unwrap_or((text, 1000));
    number.parse::<u64>().unwrap() * factor
}

/// The most pods of a workload that are there at once: as many as its autoscaler may want, and those that a release adds.
fn most_pods(environment: &Rendered, workload: &Value) -> u64 {
    let name = &workload["metadata"]["name"];
    let scaler = environment
        .of_kind("HorizontalPodAutoscaler")
        .find(|scaler| scaler["spec"]["scaleTargetRef"]["name"] == *name);
    let pods = scaler.map_or(&workload["spec"]["replicas"], |scaler| &scaler["spec"]["maxReplicas"]);
    let strategy = &workload["spec"]["strategy"];
    let surge = match strategy["type"].as_str() {
        Some("Recreate") => 0,
        // A quarter, rounded up, where nothing is said.
        _ => strategy["rollingUpdate"]["maxSurge"].as_u64().unwrap_or(pods.as_u64().unwrap().div_ceil(4)),
    };
    pods.as_u64().unwrap() + surge
}

#[test]
fn quotas_have_room_for_everything_at_its_largest() {
    let mut seen = 0;
    for environment in environments() {
        for quota in environment.of_kind("ResourceQuota") {
            let hard = &quota["spec"]["hard"];
            for (list, unit) in
                [("requests", "cpu"), ("requests", "memory"), ("limits", "cpu"), ("limits", "memory")]
            {
                let needed: u64 = environment
                    .workloads()
                    .map(|workload| {
                        let containers =
                            workload["spec"]["template"]["spec"]["containers"].as_array().unwrap();
                        let one: u64 = containers.iter().map(|c| quantity(&c["resources"][list][unit])).sum();
                        one * most_pods(&environment, workload)
                    })
                    .sum();
                let key = format!("{list}.{unit}");
                let allowed = quantity(&hard[&key]);
                assert!(needed <= allowed, "{}: {key}: {needed} of {allowed} thousandths", environment.path);
                seen += 1;
            }
            let pods: u64 = environment.workloads().map(|workload| most_pods(&environment, workload)).sum();
            assert!(pods <= quantity(&hard["pods"]) / 1000, "{}: {pods} pods", environment.path);
        }
        for limits in environment.of_kind("LimitRange") {
            let max = &limits["spec"]["limits"][0]["max"];
            for workload in environment.workloads() {
                for container in workload["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
                    for unit in ["cpu", "memory"] {
                        let limit = quantity(&container["resources"]["limits"][unit]);
                        assert!(limit <= quantity(&max[unit]), "{}: {}", environment.path, container["name"]);
                    }
                }
            }
        }
    }
    assert_eq!(seen, 20, "dev (twice), staging, prod and monitoring have a quota");
}
