//! Environment objects of the demonstration: read from the repository, pointed at a local source, applied.

use agent::api::{self, Environment};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

use crate::watch::{self, Check, TooLate};

/// Namespace of the Environment objects.
pub const NAMESPACE: &str = "holdfast-system";
/// Who the demonstration is to the API server.
const FIELD_MANAGER: &str = "playground";

/// Why an Environment cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no YAML.
    #[error(transparent)]
    Yaml(#[from] engine::object::yaml::YamlError),
    /// The file is YAML of something else.
    #[error("{file} holds no Environment: {problem}")]
    NoEnvironment {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The API server refused.
    #[error("the API server refused {what}: {source}")]
    Refused {
        /// Which object.
        what: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The custom resource is not served.
    #[error(transparent)]
    NotServed(#[from] TooLate),
}

fn refused(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let what = what.into();
    move |source| Error::Refused { what, source: Box::new(source) }
}

/// Makes the custom resource known to the cluster, and the namespace that Environments are in.
///
/// # Errors
///
/// When the API server refuses them or is too slow.
pub async fn install(client: &Client) -> Result<(), Error> {
    define(client).await?;
    namespace(client, NAMESPACE).await
}

/// Makes the custom resource known to the cluster and waits until it is served.
///
/// # Errors
///
/// When the API server refuses it or is too slow.
pub async fn define(client: &Client) -> Result<(), Error> {
    let crd = api::crd();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.metadata.name.clone().unwrap_or_default();
    definitions
        .patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&crd))
        .await
        .map_err(refused(format!("CustomResourceDefinition {name}")))?;
    let expected = format!("CustomResourceDefinition {name} to be established");
    watch::until_one(&definitions, &name, expected, Duration::from_secs(10), |crd| {
        let conditions = crd.and_then(|crd| crd.status.as_ref()?.conditions.as_ref());
        let established = conditions.into_iter().flatten().find(|condition| condition.type_ == "Established");
        match established {
            Some(condition) if condition.status == "True" => Check::Met(()),
            Some(condition) => Check::Not(format!("Established={}", condition.status)),
            None => Check::Not("no condition Established".to_owned()),
        }
    })
    .await?;
    Ok(())
}

/// Makes a namespace, unless it is there.
///
/// # Errors
///
/// When the API server refuses it.
pub async fn namespace(client: &Client, name: &str) -> Result<(), Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    namespaces
        .patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object))
        .await
        .map_err(refused(format!("Namespace {name}")))?;
    Ok(())
}

/// Reads an Environment object from a file's text.
///
/// # Errors
///
/// When the text is not YAML or holds no Environment.
pub fn read(text: &str, file: &str) -> Result<Value, Error> {
    let problem = |problem: &str| Error::NoEnvironment { file: file.to_owned(), problem: problem.to_owned() };
    let documents = engine::object::yaml::read_documents(text, file)?;
    let object = documents
        .into_iter()
        .map(|document| document.value)
        .find(|value| value["kind"] == "Environment")
        .ok_or_else(|| problem("no document has this kind"))?;
    if object["metadata"]["name"].is_string() && object["spec"]["source"].is_object() {
        Ok(object)
    } else {
        Err(problem("it has no metadata.name or no spec.source"))
    }
}

/// Points an Environment at another repository; everything else stays as the team wrote it. Where it
/// names nobody to be told, the agent's own Slack channel is.
pub fn redirect(environment: &mut Value, url: &str) {
    environment["spec"]["source"]["url"] = json!(url);
    if environment["spec"]["notify"].is_null() {
        environment["spec"]["notify"] = json!([{"slack": {}}]);
    }
}

/// Applies an Environment.
///
/// # Errors
///
/// When the API server refuses it.
pub async fn apply(client: &Client, environment: &Value) -> Result<Environment, Error> {
    let name = environment["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = environment["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
    let environments: Api<Environment> = Api::namespaced(client.clone(), namespace);
    environments
        .patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(environment))
        .await
        .map_err(refused(format!("Environment {namespace}/{name}")))
}

/// What an Environment says of itself in one line: phase, revision, and each condition that is true or has
/// bad news. For the sentence after "saw".
pub fn described(environment: Option<&Environment>) -> String {
    let Some(environment) = environment else { return "no such Environment".to_owned() };
    let Some(status) = &environment.status else { return "an Environment without status".to_owned() };
    let phase = status.phase.as_deref().unwrap_or("no phase");
    let revision = status.revision.as_deref().unwrap_or("nothing");
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            format!("{}={} {}: {}", condition.type_, condition.status, condition.reason, condition.message)
        })
        .collect();
    format!("phase {phase}, serving {revision}; {}", conditions.join("; "))
}

/// Whether an Environment is Ready, for its newest specification, at a commit.
pub fn ready_at(environment: Option<&Environment>, commit: &str) -> bool {
    let Some(environment) = environment else { return false };
    let Some(status) = &environment.status else { return false };
    let current = status.observed_generation == environment.metadata.generation;
    let ready = status.condition("Ready").is_some_and(|ready| ready.status == "True");
    let abbreviated = commit.get(..12).unwrap_or(commit);
    current && ready && status.revision.as_deref().is_some_and(|revision| revision.contains(abbreviated))
}

/// The first message, of the conditions or the status, that `is` accepts.
pub fn message_where(environment: Option<&Environment>, is: impl Fn(&str) -> bool) -> Option<String> {
    let status = environment?.status.as_ref()?;
    let messages = status.conditions.iter().map(|condition| &condition.message).chain(&status.message);
    messages.map(String::as_str).find(|message| is(message)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repositorys_environment_is_read_and_redirected() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = std::fs::read_to_string(root.join(crate::shop::ENVIRONMENT)).unwrap();
        let mut environment = read(&text, crate::shop::ENVIRONMENT).unwrap();
        redirect(&mut environment, "file:///tmp/shop.git");
        assert_eq!(environment["spec"]["source"]["url"], "file:///tmp/shop.git");
        assert_eq!(environment["spec"]["source"]["path"], "environments/dev");
        assert!(environment["spec"]["notify"].is_array());
        let _: Environment = serde_json::from_value(environment).unwrap();
    }

    #[test]
    fn a_file_without_an_environment_is_named() {
        let error = read("kind: ConfigMap\n", "a.yaml").unwrap_err();
        assert_eq!(error.to_string(), "a.yaml holds no Environment: no document has this kind");
        let error = read("a: [\n", "b.yaml").unwrap_err();
        assert!(error.to_string().contains("b.yaml"), "{error}");
    }
}
