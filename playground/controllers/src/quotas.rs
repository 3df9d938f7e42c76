//! The ResourceQuota controller: what a namespace uses of what it may.
//!
//! The API server adds what is created and refuses what there is no room for; this counts anew, so that what is
//! gone makes room. Rules: Kubernetes' `pkg/controller/resourcequota`.

use std::collections::BTreeMap;

use engine::object::Quantity;
use engine::object::quota::{Amounts, add, selects, usage};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::cache::Change;
use crate::cluster::Cluster;
use crate::gc::Resources;
use crate::meta::Key;
use crate::queue::Outcome;

/// An object that a quota may count, or how many there are of a kind of which only the number counts.
enum Counted {
    Object { plural: &'static str, object: Value },
    Number { group: String, plural: String, number: usize },
}

/// The status of a quota over what is in its namespace.
fn judge(quota: &ResourceQuota, counted: &[Counted]) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let selector = value(quota);
    let mut sum = Amounts::new();
    for counted in counted {
        match counted {
            Counted::Object { plural, object } if selects(&selector, plural, object) => {
                add(&mut sum, &usage("", plural, object));
            }
            Counted::Number { group, plural, number } if selects(&selector, plural, &Value::Null) => {
                let number = Quantity::whole(i64::try_from(*number).unwrap_or(i64::MAX));
                let all = usage(group, plural, &Value::Null).into_keys().map(|name| (name, number)).collect();
                add(&mut sum, &all);
            }
            _ => {}
        }
    }
    let none = Quantity::whole(0);
    let used: BTreeMap<String, Written> =
        hard.keys().map(|name| (name.clone(), canonical(sum.get(name).unwrap_or(&none)))).collect();
    let some = |map: BTreeMap<String, Written>| (!map.is_empty()).then_some(map);
    ResourceQuotaStatus { hard: some(hard), used: some(used) }
}

/// An amount as the API server keeps it: a sum may still be written otherwise, and would differ for ever.
fn canonical(amount: &Quantity) -> Written {
    let text = amount.to_string();
    Written(Quantity::parse(&text).map_or(text, |amount| amount.to_string()))
}

/// Whether a quota has to be counted because of its own change: who counts in what is being created changes only what
/// is used, and knows more than is seen here.
pub(crate) fn asks(change: &Change<ResourceQuota>) -> bool {
    let hard = |quota: &ResourceQuota| quota.status.as_ref().and_then(|status| status.hard.clone());
    let limits = |quota: &ResourceQuota| quota.spec.as_ref().and_then(|spec| spec.hard.clone());
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => old.spec != new.spec || hard(new) != limits(new),
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Brings one quota's status up to date.
pub(crate) async fn reconcile(cluster: &Cluster, resources: &Resources, key: &Key) -> Result<Outcome, Error> {
    let Some(quota) = cluster.quotas.store.get(&key.namespace, &key.name) else {
        return Ok(Outcome::Settled);
    };
    let mut counted = Vec::new();
    let mut objects = |plural, objects: Vec<Value>| {
        counted.extend(objects.into_iter().map(|object| Counted::Object { plural, object }));
    };
    let namespace = key.namespace.as_str();
    let pods = cluster.pods.store.in_namespace(namespace);
    objects("pods", pods.iter().map(|pod| value(pod.as_ref())).collect());
    let services = cluster.services.store.in_namespace(namespace);
    objects("services", services.iter().map(|service| value(service.as_ref())).collect());
    let claims = cluster.claims.store.in_namespace(namespace);
    objects("persistentvolumeclaims", claims.iter().map(|claim| value(claim.as_ref())).collect());
    for (kind, known) in resources.in_namespace(namespace) {
        let (group, plural) = (kind.resource.group.clone(), kind.resource.plural.clone());
        let looked_at = ["pods", "services", "persistentvolumeclaims"].contains(&plural.as_str());
        if !(group.is_empty() && looked_at) {
            counted.push(Counted::Number { group, plural, number: known.len() });
        }
    }
    let status = judge(&quota, &counted);
    if quota.status.as_ref() != Some(&status) {
        let next = ResourceQuota { status: Some(status), ..quota.as_ref().clone() };
        cluster.quotas.replace_status(&next).await?;
    }
    Ok(Outcome::Settled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_there_is_counted_where_the_quota_limits_it() {
        let quota =
            |spec: Value| serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap();
        let pod = |cpu: &str, phase: &str| Counted::Object {
            plural: "pods",
            object: json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]},
                "status": {"phase": phase, "qosClass": "Burstable"}}),
        };
        let number = |group: &str, plural: &str, number| Counted::Number {
            group: group.to_owned(),
            plural: plural.to_owned(),
            number,
        };
        let counted = [
            pod("300m", "Running"),
            pod("700m", "Pending"),
            pod("5", "Succeeded"),
            number("", "secrets", 3),
            number("apps", "deployments", 2),
        ];
        let hard = json!({"pods": "10", "requests.cpu": "2", "secrets": "5", "count/deployments.apps": "4",
            "count/pods": "20", "services": "1"});
        let status = judge(&quota(json!({"hard": hard.clone()})), &counted);
        assert_eq!(
            value(&status),
            json!({"hard": hard, "used": {"pods": "2", "requests.cpu": "1", "secrets": "3",
                "count/deployments.apps": "2", "count/pods": "3", "services": "0"}})
        );
        let scoped = judge(&quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]})), &counted);
        assert_eq!(value(&scoped)["used"], json!({"pods": "0"}));
    }
}
