//! Kubernetes Events about what controllers did, sent in the background.
//!
//! Rules: client-go's `tools/record`: what happens to the same object again is counted in the Event that tells of it.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

use crate::meta;

/// Where a component leaves its events. Recording never waits: events are news, so when the server is too slow
/// for them the newest are dropped.
#[derive(Clone)]
pub struct Recorder {
    /// None for the controllers, whose names follow from the kind.
    component: Option<&'static str>,
    queue: mpsc::Sender<Event>,
}

const QUEUE: usize = 1024;
/// Events that are remembered to be counted up.
const REMEMBERED: usize = 4096;

impl Recorder {
    /// A recorder for `component` and the task that sends what it records; the task ends with the recorder.
    pub fn new(client: Client, component: &'static str) -> (Recorder, impl Future<Output = ()>) {
        Recorder::with(client, Some(component))
    }

    /// A recorder for all controllers of this crate: each event names the one that looks after the object's kind.
    pub(crate) fn of_controllers(client: Client) -> (Recorder, impl Future<Output = ()>) {
        Recorder::with(client, None)
    }

    fn with(client: Client, component: Option<&'static str>) -> (Recorder, impl Future<Output = ()>) {
        let (queue, mut events) = mpsc::channel::<Event>(QUEUE);
        let send = async move {
            let mut sent = Sent::default();
            while let Some(event) = events.recv().await {
                if let Err(error) = sent.send(&client, event).await {
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
        let component = self.component.unwrap_or_else(|| controller_of(&K::kind(&())));
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
            source: Some(EventSource { component: Some(component.to_owned()), host: None }),
            reporting_component: Some(component.to_owned()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}

/// The name of Kubernetes' own controller for a kind.
fn controller_of(kind: &str) -> &'static str {
    match kind {
        "Deployment" => "deployment-controller",
        "ReplicaSet" => "replicaset-controller",
        "StatefulSet" => "statefulset-controller",
        "DaemonSet" => "daemonset-controller",
        "Job" => "job-controller",
        "CronJob" => "cronjob-controller",
        "HorizontalPodAutoscaler" => "horizontal-pod-autoscaler",
        "PersistentVolumeClaim" | "PersistentVolume" => "persistentvolume-controller",
        "Pod" => "default-scheduler",
        "Service" => "endpoint-slice-controller",
        _ => "controllermanager",
    }
}

/// What makes two events the same: who tells what about which object.
type Identity = (String, ObjectReference, String, String, String);

/// The events that were sent, to count up.
#[derive(Default)]
struct Sent {
    known: HashMap<u64, (Identity, String, i32)>,
}

impl Sent {
    async fn send(&mut self, client: &Client, event: Event) -> Result<(), kube::Error> {
        let api: Api<Event> =
            Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or_default());
        let identity = identity(&event);
        let key = hash(&identity);
        if let Some((same, name, count)) = self.known.get_mut(&key)
            && *same == identity
        {
            let patch = json!({"count": *count + 1, "lastTimestamp": event.last_timestamp});
            match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // Forgotten by the server meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        api.create(&PostParams::default(), &event).await?;
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, (identity, event.metadata.name.unwrap_or_default(), 1));
        Ok(())
    }
}

fn identity(event: &Event) -> Identity {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    // Whatever version of the object it was seen at.
    let about = ObjectReference { resource_version: None, ..event.involved_object.clone() };
    let component = event.source.as_ref().map(|source| text(&source.component)).unwrap_or_default();
    (component, about, text(&event.type_), text(&event.reason), text(&event.message))
}

fn hash(identity: &Identity) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let (component, about, kind, reason, message) = identity;
    (component, &about.kind, &about.name, &about.uid, kind, reason, message).hash(&mut hasher);
    hasher.finish()
}
