//! The order of the rendered objects.

use std::collections::HashMap;
use std::rc::Rc;

use crate::object::GroupVersionKind;

use super::kustomization::SortOrder;
use super::resource::Resource;
use super::transformer_config::{ORDER_FIRST, ORDER_LAST};

/// Sorts as `sortOptions` asks; by kind where nothing is asked, as `kustomize build` does.
pub(super) fn sort(resources: &mut [Resource], order: Option<&SortOrder>) {
    let to_owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let (first, last) = match order {
        Some(SortOrder::Fifo) => return,
        Some(SortOrder::Legacy(Some((first, last)))) => (first.clone(), last.clone()),
        Some(SortOrder::Legacy(None)) | None => (to_owned(&ORDER_FIRST), to_owned(&ORDER_LAST)),
    };
    let rank = |kind: &str| {
        let in_last = last.iter().rposition(|k| k == kind).map(|at| at as i64 + 1);
        let in_first = || first.iter().rposition(|k| k == kind).map(|at| at as i64 - first.len() as i64);
        in_last.or_else(in_first).unwrap_or(0)
    };
    let mut of_kinds: HashMap<GroupVersionKind, (i64, Rc<str>)> = HashMap::new();
    resources.sort_by_cached_key(|resource| {
        let gvk = resource.gvk();
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let of_kind = of_kinds.get(gvk).cloned().unwrap_or_else(|| {
            // Of kinds called Namespace the core one comes first, although its group sorts last.
            let core = if gvk.kind == "Namespace" { "" } else { "~G" };
            let text = format!("{}_{}_{}", or(&gvk.group, core), or(&gvk.version, "~V"), or(&gvk.kind, "~K"));
            let of_kind = (rank(&gvk.kind), Rc::from(text));
            of_kinds.insert(gvk.clone(), of_kind.clone());
            of_kind
        });
        // The written namespace counts, not the effective one: that is how kustomize compares.
        let id = format!(
            "{}.{}.{}|{}|{}",
            gvk.kind,
            gvk.version,
            or(&gvk.group, "[noGrp]"),
            or(resource.namespace(), "~X"),
            or(resource.name(), "~N")
        );
        (of_kind, id)
    });
}
