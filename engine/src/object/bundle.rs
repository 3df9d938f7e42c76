//! A set of objects that is applied together.

use std::collections::HashMap;

use super::{Digest, Object, ObjectRef};

/// Two objects of a bundle have one identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object} is in {first} and again in {second}; remove one of the two or rename it")]
pub struct DuplicateObject {
    /// The identity.
    pub object: Box<ObjectRef>,
    /// Where the first one is from.
    pub first: String,
    /// Where the second one is from.
    pub second: String,
}

/// Objects that are applied together, each identity once.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    objects: Vec<Object>,
    digest: Digest,
}

impl Bundle {
    /// Takes objects in the order in which they should be seen.
    ///
    /// # Errors
    /// [`DuplicateObject`] if two of them have one identity.
    pub fn new(objects: Vec<Object>) -> Result<Self, DuplicateObject> {
        Self::with_sources(objects, |at| format!("object {} of the bundle", at + 1))
    }

    /// As [`Bundle::new`], with a name for where each object, by its position, is from.
    ///
    /// # Errors
    /// [`DuplicateObject`] if two of them have one identity.
    pub fn with_sources(
        objects: Vec<Object>,
        source: impl Fn(usize) -> String,
    ) -> Result<Self, DuplicateObject> {
        let mut seen: HashMap<ObjectRef, usize> = HashMap::with_capacity(objects.len());
        for (at, object) in objects.iter().enumerate() {
            if let Some(first) = seen.insert(object.object_ref(), at) {
                return Err(DuplicateObject {
                    object: Box::new(object.object_ref()),
                    first: source(first),
                    second: source(at),
                });
            }
        }
        let digest = digest(&objects);
        Ok(Self { objects, digest })
    }

    /// The objects, in the order given.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The objects, by move.
    pub fn into_objects(self) -> Vec<Object> {
        self.objects
    }

    /// SHA-256 over the canonical JSON of the list of objects sorted by identity: their order does not matter.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }
}

fn digest(objects: &[Object]) -> Digest {
    let mut sorted: Vec<&Object> = objects.iter().collect();
    sorted.sort_by_cached_key(|object| object.object_ref());
    let mut text = String::from("[");
    for (i, object) in sorted.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&super::canonical_json(object.value()));
    }
    text.push(']');
    Digest::of_bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, value: i64) -> Object {
        Object::new(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "n": value}))
            .unwrap()
    }

    #[test]
    fn order_does_not_change_the_digest_and_content_does() {
        let digest = |objects| Bundle::new(objects).unwrap().digest();
        assert_eq!(
            digest(vec![object("a", 1), object("b", 2)]),
            digest(vec![object("b", 2), object("a", 1)])
        );
        assert_ne!(digest(vec![object("a", 1)]), digest(vec![object("a", 2)]));
        assert_eq!(digest(vec![]), Digest::of(&json!([])));
        assert_eq!(digest(vec![object("a", 1)]), Digest::of(&json!([object("a", 1).into_value()])));
    }

    #[test]
    fn one_identity_twice_names_both() {
        let error = Bundle::new(vec![object("a", 1), object("b", 1), object("a", 2)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ConfigMap a is in object 1 of the bundle and again in object 3 of the bundle; remove one of the two or rename it"
        );
    }
}
