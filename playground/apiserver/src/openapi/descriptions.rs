//! What the fields of built-in types mean, for `kubectl explain`.
//!
//! The sentences are Kubernetes' own and are not kept here: the crate `k8s-openapi` carries them in the JSON schemas of its
//! types. They are asked for once, when the first client wants an OpenAPI document.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// The schemas of all types that the served kinds consist of, by full name.
static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut generator = SchemaSettings::draft07().into_generator();
    name_kinds(&mut generator);
    generator.take_definitions(false)
});

/// Has the generator define the types of a module and all that they consist of.
fn name_kinds(generator: &mut SchemaGenerator) {
    macro_rules! name {
        ($($module:ident)::+: $($kind:ident),+) => {
            {
                use $($module)::+ as module;
                $(generator.subschema_for::<module::$kind>();)+
            }
        };
    }
    name!(k8s_openapi::api::core::v1: Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolumeClaim, PersistentVolume, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, ServiceAccount, Service);
    name!(k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1: APIService);
    name!(k8s_openapi::api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet);
    name!(k8s_openapi::api::events::v1: Event);
    name!(k8s_openapi::api::authentication::v1: SelfSubjectReview, TokenReview);
    name!(k8s_openapi::api::authorization::v1: LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview);
    name!(k8s_openapi::api::autoscaling::v2: HorizontalPodAutoscaler);
    name!(k8s_openapi::api::autoscaling::v1: HorizontalPodAutoscaler);
    name!(k8s_openapi::api::batch::v1: CronJob, Job);
    name!(k8s_openapi::api::certificates::v1: CertificateSigningRequest);
    name!(k8s_openapi::api::networking::v1: IngressClass, Ingress, IPAddress, NetworkPolicy, ServiceCIDR);
    name!(k8s_openapi::api::policy::v1: PodDisruptionBudget);
    name!(k8s_openapi::api::rbac::v1: ClusterRoleBinding, ClusterRole, RoleBinding, Role);
    name!(k8s_openapi::api::storage::v1: CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass);
    name!(k8s_openapi::api::admissionregistration::v1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration);
    name!(k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition);
    name!(k8s_openapi::api::scheduling::v1: PriorityClass);
    name!(k8s_openapi::api::coordination::v1: Lease);
    name!(k8s_openapi::api::node::v1: RuntimeClass);
    name!(k8s_openapi::api::discovery::v1: EndpointSlice);
    name!(k8s_openapi::api::resource::v1: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice);
    name!(k8s_openapi::api::flowcontrol::v1: FlowSchema, PriorityLevelConfiguration);
    name!(k8s_openapi::api::autoscaling::v1: Scale);
    name!(k8s_openapi::api::authentication::v1: TokenRequest);
    name!(k8s_openapi::api::policy::v1: Eviction);
    name!(k8s_openapi::apimachinery::pkg::apis::meta::v1: DeleteOptions, Status, ListMeta, Time, MicroTime);
}

/// The whole schema of a type, as `io.k8s.api.core.v1.Pod`.
pub fn schema(name: &str) -> Option<&'static Value> {
    SCHEMAS.get(name)
}

/// What a type is.
pub fn of_type(name: &str) -> Option<&'static str> {
    schema(name)?["description"].as_str()
}

/// What a field of a type is.
pub fn of_field(name: &str, field: &str) -> Option<&'static str> {
    schema(name)?["properties"][field]["description"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::catalogue::Catalogue;

    #[test]
    fn every_built_in_field_is_described() {
        let mut missing = Vec::new();
        for resource in Catalogue::built_in().all() {
            let Some(ty) = resource.ty.as_struct() else { continue };
            let name = super::super::schemas::full_name(&ty.name);
            if of_type(&name).is_none() {
                missing.push(name.clone());
            }
            // The specification itself says nothing of the metadata of one kind.
            let fields = ty.fields.keys().filter(|field| *field != "metadata");
            missing.extend(fields.filter(|f| of_field(&name, f).is_none()).map(|f| format!("{name}.{f}")));
        }
        assert_eq!(missing, Vec::<String>::new());
    }
}
