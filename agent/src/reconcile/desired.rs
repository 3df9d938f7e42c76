//! What an environment wants of the cluster: a bundle, made ready to be applied.

use std::collections::HashMap;

use engine::object::{Bundle, Digest, Object, ObjectRef};
use engine::plan::{ShortDigest, canary};

use crate::api::{Environment, IgnoreSpec};
use crate::cluster::{Cluster, Error, Members};

/// A bundle with namespaces set, ignored fields left out, and changed Deployments held at canary size.
#[derive(Debug)]
pub struct Desired {
    /// The bundle that it was made from.
    pub digest: Digest,
    /// Deployments that hold at canary size.
    pub canaries: Vec<ObjectRef>,
    /// The objects, as they are applied but for their marks.
    pub objects: Vec<Object>,
    refs: Vec<ObjectRef>,
    index: HashMap<ObjectRef, ShortDigest>,
}

impl Desired {
    /// Makes a bundle ready. With a baseline, the Deployments that changed since hold at `pods` new pods.
    ///
    /// # Errors
    /// When the cluster cannot be asked for its kinds.
    pub async fn prepare(
        cluster: &Cluster,
        environment: &Environment,
        bundle: &Bundle,
        canary_of: Option<(&Bundle, u32)>,
    ) -> Result<Self, Error> {
        let mut objects = placed(cluster, environment, bundle).await?;
        let mut canaries = Vec::new();
        if let Some((baseline, pods)) = canary_of {
            canaries = canary::affected(&placed(cluster, environment, baseline).await?, &objects);
            for object in &mut objects {
                if canaries.contains(&object.object_ref()) {
                    *object = canary::overlay(object, pods);
                }
            }
        }
        Ok(Self::new(bundle.digest(), canaries, objects))
    }

    /// Indexes objects that are ready.
    pub fn new(digest: Digest, canaries: Vec<ObjectRef>, objects: Vec<Object>) -> Self {
        let refs = objects.iter().map(Object::object_ref).collect();
        let index = objects.iter().map(|object| (object.object_ref(), ShortDigest::from(object))).collect();
        Self { digest, canaries, objects, refs, index }
    }

    /// The identities of the objects.
    pub fn refs(&self) -> &[ObjectRef] {
        &self.refs
    }

    /// Whether the object is one of these.
    pub fn wants(&self, object: &ObjectRef) -> bool {
        self.index.contains_key(object)
    }

    /// The Deployments among the objects.
    pub fn deployments(&self) -> Vec<ObjectRef> {
        self.refs.iter().filter(|object| object.group_kind().is("apps", "Deployment")).cloned().collect()
    }

    /// Whether an object is gone, or is not what was applied any more.
    pub fn has_drifted(&self, members: &Members, object: &ObjectRef) -> bool {
        let Some(wanted) = self.index.get(object) else {
            return false;
        };
        match members.get(object) {
            None => true,
            // It goes; it is made again when it is gone.
            Some(member) if member.live.terminating => false,
            Some(member) => !member.live.is_intact(*wanted),
        }
    }

    /// All objects that are gone, or are not what was applied any more.
    pub fn drifted(&self, members: &Members) -> Vec<ObjectRef> {
        let mut drifted: Vec<_> =
            self.refs.iter().filter(|object| self.has_drifted(members, object)).cloned().collect();
        drifted.sort();
        drifted
    }
}

/// The objects where their kinds belong, without the fields that are left to others. Objects of unknown
/// kinds stay as they are: the door names them.
async fn placed(cluster: &Cluster, environment: &Environment, bundle: &Bundle) -> Result<Vec<Object>, Error> {
    let mut objects = bundle.objects().to_vec();
    let gvks: Vec<_> = objects.iter().map(Object::gvk).collect();
    let kinds = cluster.kinds_of(&gvks).await?;
    for (object, gvk) in objects.iter_mut().zip(&gvks) {
        let namespaced = brought_along(bundle.objects(), &gvk.group, &gvk.kind)
            .or_else(|| kinds.get(gvk).map(|kind| kind.namespaced));
        match namespaced {
            Some(true) if object.namespace().is_none() => object.set_namespace(environment.namespace()),
            Some(false) => object.clear_namespace(),
            Some(true) | None => {}
        }
        leave(object, &environment.spec.ignore);
    }
    engine::plan::leave_to_autoscaler(&mut objects);
    Ok(objects)
}

/// Whether a kind whose definition is part of the same bundle lives in namespaces.
fn brought_along(objects: &[Object], group: &str, kind: &str) -> Option<bool> {
    let definition = objects.iter().map(Object::value).find(|value| {
        value["kind"] == "CustomResourceDefinition"
            && value["spec"]["group"] == group
            && value["spec"]["names"]["kind"] == kind
    })?;
    Some(definition["spec"]["scope"] != "Cluster")
}

/// Takes out the fields that are left to others.
fn leave(object: &mut Object, rules: &[IgnoreSpec]) {
    let identity = object.object_ref();
    for rule in rules {
        let matches = rule.group.as_ref().is_none_or(|group| *group == identity.group)
            && (rule.kind == "*" || rule.kind == identity.kind)
            && rule.namespace.as_ref().is_none_or(|wanted| Some(wanted) == identity.namespace.as_ref())
            && glob(&rule.name, &identity.name);
        if matches {
            for pointer in &rule.pointers {
                object.remove_field(pointer);
            }
        }
    }
}

/// `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("*", "x", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c", "abc", true),
            ("a*c", "abd", false),
            ("a*b*c", "axbyc", true),
            ("", "a", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn ignored_fields_are_not_applied() {
        let mut object = Object::new(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "backend", "namespace": "shop"},
            "spec": {"replicas": 3, "paused": false}
        })).unwrap();
        let rule = IgnoreSpec {
            group: None,
            kind: "Deployment".into(),
            namespace: None,
            name: "back*".into(),
            pointers: vec!["/spec/replicas".into(), "/spec/none/there".into()],
        };
        leave(&mut object, &[rule]);
        assert_eq!(object.value()["spec"], json!({"paused": false}));
    }
}
