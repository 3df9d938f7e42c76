//! ConfigMaps and Secrets that renders depend on: each is watched once, whatever the number of environments
//! that name it, and only while one does.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::sync::watch;

use super::request::{Call, Target};
use super::watch::{Seen, Watched};
use super::{Cluster, Error, Kind};

/// The kind of an object that a render depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InputKind {
    /// A ConfigMap: its `data` and `binaryData`.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl InputKind {
    fn kind(self) -> Kind {
        match self {
            Self::ConfigMap => Kind::known("v1", "ConfigMap", "configmaps"),
            Self::Secret => Kind::known("v1", "Secret", "secrets"),
        }
    }
}

/// An object that a render depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InputRef {
    /// Its kind.
    pub kind: InputKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for InputRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What is in such an object now. `Debug` shows no value.
#[derive(Clone, PartialEq, Eq)]
pub enum InputState {
    /// It was not asked for yet.
    Pending,
    /// It does not exist.
    Missing,
    /// It cannot be read: why, in a sentence.
    Failed(String),
    /// Its data.
    Present(Arc<BTreeMap<String, Vec<u8>>>),
}

impl fmt::Debug for InputState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("Pending"),
            Self::Missing => f.write_str("Missing"),
            Self::Failed(message) => f.debug_tuple("Failed").field(message).finish(),
            Self::Present(data) => f.debug_set().entries(data.keys()).finish(),
        }
    }
}

type Sender = watch::Sender<InputState>;

/// The objects that are watched now.
#[derive(Default)]
pub(super) struct Inputs(Mutex<HashMap<InputRef, Weak<Sender>>>);

impl Cluster {
    /// Follows an object that a render depends on. The first subscriber's watch serves all; it ends when
    /// the last receiver is dropped.
    ///
    /// Must be called inside a tokio runtime.
    pub fn input(&self, input: &InputRef) -> watch::Receiver<InputState> {
        let mut inputs = self.inner.inputs.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = inputs.get(input).and_then(Weak::upgrade) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(InputState::Pending);
        let sender = Arc::new(sender);
        inputs.insert(input.clone(), Arc::downgrade(&sender));
        tokio::spawn(self.clone().follow_input(input.clone(), sender));
        receiver
    }

    async fn follow_input(self, input: InputRef, sender: Arc<Sender>) {
        let kind = input.kind.kind();
        let set = |state: InputState| {
            sender.send_if_modified(|known| {
                let changed = *known != state;
                *known = state;
                changed
            });
        };
        // A watch that is refused stays silent: the first answer says why.
        let target = Target::object(&kind, Some(&input.namespace), &input.name);
        match self.call(Call::get(target)).await {
            Ok(object) => set(read(&object)),
            Err(Error::NotFound { .. }) => set(InputState::Missing),
            Err(error) => set(InputState::Failed(error.to_string())),
        }
        let watched = Watched {
            kind: Arc::new(input.kind.kind()),
            namespace: Some(input.namespace.clone()),
            labels: None,
            fields: Some(format!("metadata.name={}", input.name)),
            ends_with_kind: false,
        };
        let mut listed = false;
        let follow = super::watch::watch(self.client().clone(), watched, |seen| {
            match seen {
                Seen::Restarted => listed = false,
                Seen::Listed(object) | Seen::Applied(object) => {
                    listed = true;
                    set(read(&object));
                }
                Seen::Synced if !listed => set(InputState::Missing),
                Seen::Synced => {}
                Seen::Deleted(_) | Seen::Unserved => set(InputState::Missing),
            }
            true
        });
        futures::pin_mut!(follow);
        loop {
            tokio::select! {
                () = &mut follow => return,
                () = sender.closed() => {}
            }
            // Nobody subscribes while the list is locked.
            let mut inputs = self.inner.inputs.0.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.receiver_count() == 0 {
                inputs.remove(&input);
                return;
            }
        }
    }
}

/// The data of an object.
fn read(object: &Value) -> InputState {
    let is_secret = object["kind"] == "Secret";
    let mut data = BTreeMap::new();
    for (field, encoded) in [("data", is_secret), ("binaryData", true)] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            let bytes = if encoded { STANDARD.decode(text).ok() } else { Some(text.as_bytes().to_vec()) };
            match bytes {
                Some(bytes) => data.insert(key.clone(), bytes),
                None => return InputState::Failed(format!("the value of {key} is not base64")),
            };
        }
    }
    InputState::Present(Arc::new(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_is_read_and_never_printed() {
        let secret = read(&json!({"kind": "Secret", "data": {"a": "aHVudGVyMg=="}}));
        assert_eq!(secret, InputState::Present(Arc::new([("a".to_owned(), b"hunter2".to_vec())].into())));
        assert_eq!(format!("{secret:?}"), "{\"a\"}");
        let map = read(&json!({"kind": "ConfigMap", "data": {"a": "b"}, "binaryData": {"c": "ZA=="}}));
        let expected = [("a".to_owned(), b"b".to_vec()), ("c".to_owned(), b"d".to_vec())];
        assert_eq!(map, InputState::Present(Arc::new(expected.into())));
        assert_eq!(read(&json!({"kind": "ConfigMap"})), InputState::Present(Arc::default()));
        let broken = read(&json!({"kind": "Secret", "data": {"a": "%"}}));
        assert_eq!(broken, InputState::Failed("the value of a is not base64".to_owned()));
    }
}
