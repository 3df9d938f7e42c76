//! Kubernetes Events about what controllers did, sent in the background.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;

use crate::meta;

/// Where a component leaves its events. Recording never waits: events are news, so when the server is too slow
/// for them the newest are dropped.
#[derive(Clone)]
pub struct Recorder {
    component: &'static str,
    queue: mpsc::Sender<Event>,
}

const QUEUE: usize = 1024;

impl Recorder {
    /// A recorder for `component` and the task that sends what it records; the task ends with the recorder.
    pub fn new(client: Client, component: &'static str) -> (Recorder, impl Future<Output = ()>) {
        let (queue, mut events) = mpsc::channel::<Event>(QUEUE);
        let send = async move {
            while let Some(event) = events.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                if let Err(error) = api.create(&PostParams::default(), &event).await {
                    tracing::debug!(%error, "event not recorded");
                }
            }
        };
        (Recorder { component, queue }, send)
    }

    /// Records something that is as it should be.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: String) {
        self.record(about, "Normal", reason, message);
    }

    /// Records something that a person may have to look at.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: String) {
        self.record(about, "Warning", reason, message);
    }

    fn record<K: Resource<DynamicType = ()>>(&self, about: &K, kind: &str, reason: &str, message: String) {
        let now = Timestamp::now();
        let name = meta::name(about);
        let namespace = match meta::namespace(about) {
            "" => "default",
            namespace => namespace,
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: Some(name.to_owned()),
                namespace: about.meta().namespace.clone(),
                uid: about.meta().uid.clone(),
                resource_version: about.meta().resource_version.clone(),
                field_path: None,
            },
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.chars().take(1024).collect()),
            count: Some(1),
            first_timestamp: Some(meta::seconds(now)),
            last_timestamp: Some(meta::seconds(now)),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}
