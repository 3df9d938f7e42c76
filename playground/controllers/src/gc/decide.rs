//! What garbage collection does with one object, decided from its owners' states.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The finalizer of an object that waits for its dependents' deletion.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to be let go first.
pub(crate) const ORPHAN: &str = "orphan";

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It exists.
    Solid,
    /// It does not exist, or another object has its name.
    Absent,
    /// It exists but waits for its dependents to go (foreground deletion).
    Waiting,
}

/// How the dependents of a deleted object are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Leave it.
    Keep,
    /// Some owners remain: only the references to the others go.
    DropReferences(Vec<OwnerReference>),
    /// No owner remains.
    Delete(Propagation),
}

/// Decides for an object, with its owner references and what is known of each.
pub(crate) fn decide(
    object: &ObjectMeta,
    owners: &[(OwnerReference, Owner)],
    has_dependents: bool,
) -> Action {
    if object.deletion_timestamp.is_some() || owners.is_empty() {
        return Action::Keep;
    }
    let is = |state: Owner| owners.iter().any(|(_, known)| *known == state);
    if is(Owner::Solid) {
        let kept: Vec<OwnerReference> = owners
            .iter()
            .filter(|(_, known)| *known == Owner::Solid)
            .map(|(reference, _)| reference.clone())
            .collect();
        return if kept.len() == owners.len() { Action::Keep } else { Action::DropReferences(kept) };
    }
    if is(Owner::Waiting) && has_dependents {
        return Action::Delete(Propagation::Foreground);
    }
    Action::Delete(if has_finalizer(object, ORPHAN) {
        Propagation::Orphan
    } else if has_finalizer(object, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

pub(crate) fn has_finalizer(object: &ObjectMeta, name: &str) -> bool {
    object.finalizers.as_ref().is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == name))
}

/// Whether the object is being deleted and waits for its dependents.
pub(crate) fn waits_for_dependents(object: &ObjectMeta) -> bool {
    object.deletion_timestamp.is_some() && has_finalizer(object, FOREGROUND)
}

/// Whether the object is being deleted and its dependents are to be let go.
pub(crate) fn orphans_dependents(object: &ObjectMeta) -> bool {
    object.deletion_timestamp.is_some() && has_finalizer(object, ORPHAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.to_owned(), name: uid.to_owned(), ..OwnerReference::default() }
    }

    #[test]
    fn an_object_lives_as_long_as_one_owner_does() {
        let object = ObjectMeta::default();
        let cases = [
            (vec![], Action::Keep),
            (vec![(owner("a"), Owner::Solid)], Action::Keep),
            (vec![(owner("a"), Owner::Absent)], Action::Delete(Propagation::Background)),
            (
                vec![(owner("a"), Owner::Solid), (owner("b"), Owner::Absent)],
                Action::DropReferences(vec![owner("a")]),
            ),
            (vec![(owner("a"), Owner::Waiting)], Action::Delete(Propagation::Background)),
        ];
        for (owners, expected) in cases {
            assert_eq!(decide(&object, &owners, false), expected, "{owners:?}");
        }
    }

    #[test]
    fn foreground_deletion_goes_down_the_tree() {
        let owners = [(owner("a"), Owner::Waiting)];
        assert_eq!(decide(&ObjectMeta::default(), &owners, true), Action::Delete(Propagation::Foreground));
    }

    #[test]
    fn an_object_on_its_way_out_is_left_alone() {
        let object = ObjectMeta {
            deletion_timestamp: Some(crate::meta::seconds("2026-01-01T00:00:00Z".parse().unwrap())),
            ..ObjectMeta::default()
        };
        assert_eq!(decide(&object, &[(owner("a"), Owner::Absent)], false), Action::Keep);
    }
}
