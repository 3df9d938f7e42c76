//! The CustomResourceDefinition of [`Environment`](super::Environment).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::Environment;

/// The CustomResourceDefinition, with a structural schema, validation rules and printer columns.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = Environment::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
    crd
}

/// A field that may be left out need not be null too: a rule's `has()` would take null for a value. And of
/// the number formats an API server knows the signed ones only; it warns of others at every apply.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.format.take_if(|format| format.starts_with("uint"));
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(tidy);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn schema() -> Value {
        let crd = serde_json::to_value(crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn the_definition_names_and_prints_what_people_expect() {
        let crd = serde_json::to_value(crd()).unwrap();
        assert_eq!(crd["metadata"]["name"], "environments.holdfast.dev");
        assert_eq!(crd["spec"]["names"]["shortNames"], json!(["env"]));
        assert_eq!(crd["spec"]["scope"], "Namespaced");
        let version = &crd["spec"]["versions"][0];
        assert_eq!(version["subresources"], json!({"status": {}}));
        let columns: Vec<&str> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(columns, ["Ready", "Revision", "Phase", "Age", "Message"]);
    }

    #[test]
    fn the_schema_is_structural() {
        fn visit(at: &str, schema: &Value) {
            assert!(schema.get("$ref").is_none(), "{at} has a $ref");
            assert!(schema.get("anyOf").is_none() && schema.get("oneOf").is_none(), "{at} has alternatives");
            assert!(schema["type"].is_string(), "{at} has no type: {schema}");
            assert!(schema.get("nullable").is_none(), "{at} may be null");
            let format = schema["format"].as_str().unwrap_or_default();
            assert!(!format.starts_with("uint"), "{at} has the format {format}");
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                visit(&format!("{at}.{name}"), property);
            }
            for inner in ["items", "additionalProperties"] {
                if schema[inner].is_object() {
                    visit(&format!("{at}[]"), &schema[inner]);
                }
            }
        }
        visit("", &schema());
    }

    #[test]
    fn rules_and_defaults_are_in_the_schema() {
        let spec = schema()["properties"]["spec"].clone();
        let source = &spec["properties"]["source"];
        let rules = source["x-kubernetes-validations"].as_array().unwrap();
        assert!(rules.iter().any(|rule| rule["message"] == "set exactly one of branch, tag and commit"));
        assert_eq!(source["properties"]["interval"]["default"], "30s");
        assert_eq!(source["required"], json!(["url"]));
        assert_eq!(spec["properties"]["prune"]["default"], true);
        assert_eq!(spec["properties"]["rollout"]["default"]["readyTimeout"], "5m");
        assert_eq!(spec["properties"]["drift"]["enum"], json!(["Correct", "Report"]));
        let gates = &spec["properties"]["rollout"]["properties"]["gates"];
        assert_eq!(gates["x-kubernetes-list-map-keys"], json!(["name"]));
        let status = schema()["properties"]["status"].clone();
        assert_eq!(status["properties"]["rollout"]["x-kubernetes-preserve-unknown-fields"], true);
        assert_eq!(status["properties"]["conditions"]["x-kubernetes-list-map-keys"], json!(["type"]));
    }
}
