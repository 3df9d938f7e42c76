//! What PriorityClasses and RuntimeClasses make of pods.
//!
//! Rules: Kubernetes `plugin/pkg/admission/priority` and `plugin/pkg/admission/runtimeclass`.

use crate::app::App;
use crate::status::{About, Refusal};
use serde_json::{Value, json};

const PRIORITIES: &str = "priorityclasses.scheduling.k8s.io";
const RUNTIMES: &str = "runtimeclasses.node.k8s.io";

/// Sets the priority, the preemption policy and the overhead of a new pod.
pub fn set(app: &App, pod: &mut Value) -> Result<(), Refusal> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let refuse = |why: String| Refusal::forbidden(About::new("", "pods", &name), &why);
    let wanted = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if wanted.is_empty() {
        let store = app.store();
        // The smallest of several defaults counts, as on a real server.
        store
            .range(PRIORITIES, "", "")
            .filter(|c| c.value["globalDefault"] == true)
            .min_by_key(|c| c.value["value"].as_i64())
            .map(|c| c.value.clone())
    } else {
        let found = app.store().get(PRIORITIES, &wanted);
        let missing = || refuse(format!("no PriorityClass with name {wanted} was found"));
        Some(found.ok_or_else(missing)?.value.clone())
    };
    let (priority, policy) = match &class {
        Some(class) => (
            class["value"].as_i64().unwrap_or(0),
            class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority").to_owned(),
        ),
        None => (0, "PreemptLowerPriority".to_owned()),
    };
    if wanted.is_empty()
        && let Some(class) = &class
    {
        pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != priority) {
        return Err(refuse(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed \
             {priority} from the given PriorityClass name"
        )));
    }
    let given = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy);
    if let Some(given) = given {
        return Err(refuse(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller \
             computed {policy} from the given PriorityClass name"
        )));
    }
    pod["spec"]["priority"] = priority.into();
    pod["spec"]["preemptionPolicy"] = policy.into();
    runtime(app, pod).map_err(refuse)
}

fn runtime(app: &App, pod: &mut Value) -> Result<(), String> {
    let wanted = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    let has_overhead = |v: &Value| v.as_object().is_some_and(|o| !o.is_empty());
    let overhead = if wanted.is_empty() {
        json!(null)
    } else {
        let found = app.store().get(RUNTIMES, &wanted);
        let class = found.ok_or_else(|| format!("pod rejected: RuntimeClass {wanted:?} not found"))?;
        class.value["overhead"]["podFixed"].clone()
    };
    let given = &pod["spec"]["overhead"];
    if !has_overhead(&overhead) {
        if has_overhead(given) {
            return Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into()
            );
        }
        return Ok(());
    }
    if has_overhead(given) && *given != overhead {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
    }
    pod["spec"]["overhead"] = overhead;
    Ok(())
}
