//! Reading: one object, lists, watches.

use crate::app::App;
use crate::request::{Request, Target};
use crate::respond::{self, Body, Format, Shape};
use crate::schema::catalogue::Resource;
use crate::selector::{Fields, Labels};
use crate::status::{About, Cause, Refusal};
use crate::store::{Object, Store};
use crate::{body, faults, table, time};
use base64::Engine;
use bytes::{Bytes, BytesMut};
use http::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Which objects of a collection are wanted.
#[derive(Debug, Clone)]
pub struct Selection {
    /// By labels.
    pub labels: Labels,
    /// By fields.
    pub fields: Fields,
    /// Keys start with this.
    pub prefix: String,
}

impl Selection {
    /// Reads the selectors of a request.
    pub fn read(target: &Target, request: &Request) -> Result<Selection, Refusal> {
        let resource = &target.resource;
        let labels = Labels::parse(request.query.get("labelSelector"))?;
        let mut fields = request.query.get("fieldSelector").to_owned();
        if !target.name.is_empty() {
            fields = format!("metadata.name={}", target.name);
        }
        let fields = Fields::parse(&fields, resource)?;
        let prefix =
            if target.namespace.is_empty() { String::new() } else { format!("{}/", target.namespace) };
        Ok(Selection { labels, fields, prefix })
    }

    /// Whether a stored object is wanted. `shown` gives it in the version of the request.
    pub fn matches(&self, app: &App, resource: &Resource, object: &Object) -> bool {
        object.key.starts_with(&self.prefix)
            && self.labels.matches(&object.value)
            && (self.fields.is_empty() || {
                self.fields.matches(&object.value) || self.fields.matches(&app.shown(resource, &object.value))
            })
    }
}

/// The bytes of an object in the version of the request; those of the store where that is the same.
pub fn bytes(app: &App, resource: &Resource, object: &Object) -> Bytes {
    if object.value["apiVersion"].as_str() == Some(&resource.group_version()) {
        return object.json.clone();
    }
    Bytes::from(serde_json::to_vec(&app.shown(resource, &object.value)).unwrap_or_default())
}

/// GET of one object.
pub fn get(app: &App, target: &Target, request: &Request, format: Format) -> Result<Response<Body>, Refusal> {
    let resource = &target.resource;
    let version = request.query.get("resourceVersion");
    if !version.is_empty() && version.parse::<u64>().is_err() {
        return Err(Refusal::internal(format!(
            "resourceVersion: Invalid value: {version:?}: strconv.ParseUint: parsing {version:?}: invalid syntax"
        )));
    }
    let object = app.store().get(&resource.table(), &target.key());
    let object = object
        .ok_or_else(|| Refusal::not_found(About::new(&resource.group, &resource.plural, &target.name)))?;
    let object = faults::seen(app, resource, &faults::of_target(target, request, "get"), &object);
    if format.shape == Shape::Whole && !format.yaml {
        return Ok(respond::raw(200, bytes(app, resource, &object), "application/json"));
    }
    let shown = app.shown(resource, &object.value);
    Ok(respond::value(200, &respond::shaped(&shown, resource, format, time::now()), format.yaml))
}

/// Base64 as Go reads it: unused bits at the end may be set.
const LENIENT: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    base64::engine::GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
);

/// Where a list goes on.
struct Continue {
    start: String,
    /// Revision of the first page; `None` to go on in the current state.
    revision: Option<u64>,
}

impl Continue {
    fn read(token: &str) -> Result<Option<Continue>, Refusal> {
        if token.is_empty() {
            return Ok(None);
        }
        let refuse = |why: String| {
            Refusal::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let decoded = LENIENT.decode(token).map_err(|e| refuse(e.to_string()))?;
        let value = body::json(&decoded).map_err(refuse)?.value;
        let start = value["start"].as_str().unwrap_or_default().to_owned();
        let revision = value["rv"].as_i64().unwrap_or(0);
        if value["v"] != "meta.k8s.io/v1" || start.is_empty() || revision == 0 {
            return Err(refuse("incorrect or missing start key or revision".into()));
        }
        Ok(Some(Continue { start, revision: u64::try_from(revision).ok() }))
    }

    fn write(&self) -> String {
        let revision = self.revision.map_or(json!(-1), |r| json!(r));
        let value = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start});
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
    }
}

/// The earlier revision that a list shows; `None` for the current state.
///
/// Rules: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
fn state_of(store: &Store, request: &Request, next: Option<&Continue>) -> Result<Option<u64>, Refusal> {
    let (wanted, how) = (request.query.get("resourceVersion"), request.query.get("resourceVersionMatch"));
    let current = store.revision();
    let number: Option<u64> = match wanted {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Refusal::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: \
                 invalid syntax"
            ))
        })?),
    };
    let next_revision = next.and_then(|c| c.revision);
    for revision in number.into_iter().chain(next_revision) {
        if revision > current {
            return Err(Refusal::future_version(revision, current));
        }
    }
    if let Some(next) = next {
        return Ok(next.revision.filter(|r| *r < current));
    }
    if how == "Exact" && number.is_some_and(|n| n > 0) {
        return Ok(number);
    }
    Ok(None)
}

/// The state of a list that is to be stale: as old as wanted, unless the client asks for a newer one.
fn stale_state(store: &Store, request: &Request, table: &str, stale: u64) -> Result<Option<u64>, Refusal> {
    let least = request.query.get("resourceVersion").parse().unwrap_or(0);
    if least > stale {
        return state_of(store, request, None);
    }
    // What is no longer in the history cannot be shown.
    Ok(Some(stale.max(store.oldest(table))).filter(|r| *r < store.revision()))
}

/// 410 for a page or an exact list whose revision was compacted. A page comes with a token for the current state.
fn expired(next: Option<&Continue>) -> Refusal {
    let Some(next) = next else {
        return Refusal::gone("The resourceVersion for the provided list is too old.");
    };
    let token = Continue { start: next.start.clone(), revision: None }.write();
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
                   without the continue parameter, or use the continue token in this response to retrieve the remainder of \
                   the results. Continuing with the provided token results in an inconsistent list - objects that were \
                   created, modified, or deleted between the time the first chunk was returned and now may show up in the \
                   list.";
    Refusal { next: Some(token.into()), ..Refusal::gone(message) }
}

/// Rules for the options of a list.
fn check_list(request: &Request) -> Result<(), Refusal> {
    let query = &request.query;
    let limit = query.get("limit");
    if !limit.is_empty() && limit.parse::<i64>().is_err() {
        return Err(Refusal::bad_request(format!("strconv.ParseInt: parsing {limit:?}: invalid syntax")));
    }
    let (version, how) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let mut causes = Vec::new();
    if query.is_true("sendInitialEvents") {
        causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    } else if !how.is_empty() {
        let at = "resourceVersionMatch";
        if !query.get("continue").is_empty() {
            causes.push(Cause::forbidden(at, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if version.is_empty() {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            causes.push(Cause::forbidden(at, detail));
        }
        if !matches!(how, "Exact" | "NotOlderThan") {
            let allowed = ["Exact", "NotOlderThan", ""].map(String::from);
            causes.push(Cause::unsupported(at, &json!(how), &allowed));
        }
        if how == "Exact" && version == "0" {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(Cause::forbidden(at, detail));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid("meta.k8s.io", "ListOptions", "", causes)) }
}

/// GET of a collection.
pub fn list(
    app: &App,
    target: &Target,
    request: &Request,
    format: Format,
) -> Result<Response<Body>, Refusal> {
    let resource = &target.resource;
    let query = &request.query;
    let selection = Selection::read(target, request)?;
    check_list(request)?;
    let unselected = selection.labels.is_empty() && selection.fields.is_empty();
    let next = Continue::read(query.get("continue"))?;
    let mut limit = query.number("limit").filter(|l| *l > 0).map_or(usize::MAX, |l| l as usize);
    if query.get("resourceVersion") == "0" && next.is_none() {
        limit = usize::MAX;
    }
    let (objects, revision, rest) = {
        let store = app.store();
        let state = match request.stale.filter(|_| next.is_none()) {
            Some(stale) => stale_state(&store, request, &resource.table(), stale)?,
            None => state_of(&store, request, next.as_ref())?,
        };
        let start = next.as_ref().map_or("", |c| c.start.as_str());
        let (table, prefix) = (resource.table(), selection.prefix.as_str());
        let old: Vec<Arc<Object>>;
        let found: Box<dyn Iterator<Item = &Arc<Object>>> = match state {
            Some(revision) => {
                old = store.range_at(&table, prefix, start, revision).map_err(|_| expired(next.as_ref()))?;
                Box::new(old.iter())
            }
            None => Box::new(store.range(&table, prefix, start)),
        };
        let mut range = found;
        let wanted = range.by_ref().filter(|o| selection.matches(app, resource, o));
        let objects: Vec<Arc<Object>> = wanted.take(limit).cloned().collect();
        // As on a real server, a list goes on when there is more to look at, whether it is wanted or not. How much more is
        // told only without selectors.
        let rest = if unselected { range.count() } else { usize::from(range.next().is_some()) };
        (objects, state.unwrap_or_else(|| store.revision()), rest)
    };
    let reader = faults::of_target(target, request, "list");
    let objects: Vec<Arc<Object>> = objects.iter().map(|o| faults::seen(app, resource, &reader, o)).collect();
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if resource.custom.is_some() && format.shape == Shape::Whole {
        metadata["continue"] = "".into();
    }
    if rest > 0
        && let Some(last) = objects.last()
    {
        metadata["continue"] =
            Continue { start: format!("{}\0", last.key), revision: Some(revision) }.write().into();
        if unselected {
            metadata["remainingItemCount"] = rest.into();
        }
    }
    let shown = |o: &Arc<Object>| app.shown(resource, &o.value);
    match (format.shape, format.yaml) {
        (Shape::Whole | Shape::Discovery, false) => {
            Ok(respond::raw(200, joined(app, resource, &objects, &metadata), "application/json"))
        }
        (Shape::Whole | Shape::Discovery, true) => {
            let items: Vec<Value> = objects.iter().map(shown).collect();
            let list = json!({"kind": resource.list_kind, "apiVersion": resource.group_version(), "metadata": metadata,
                "items": items});
            Ok(respond::value(200, &list, true))
        }
        (Shape::Metadata, yaml) => {
            let items: Vec<Value> = objects.iter().map(|o| respond::partial(&o.value)).collect();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items});
            Ok(respond::value(200, &list, yaml))
        }
        (Shape::Table, yaml) => {
            let items: Vec<Value> = objects.iter().map(shown).collect();
            let rendered = table::render(resource, items.iter(), metadata, time::now(), format.include);
            Ok(respond::value(200, &rendered, yaml))
        }
    }
}

/// A list from the objects' stored bytes. Items of built-in kinds have no `apiVersion` and `kind`.
fn joined(app: &App, resource: &Resource, objects: &[Arc<Object>], metadata: &Value) -> Bytes {
    let gv = resource.group_version();
    let mut out = BytesMut::with_capacity(200 + objects.iter().map(|o| o.json.len()).sum::<usize>());
    let head = json!({"kind": resource.list_kind, "apiVersion": gv, "metadata": metadata}).to_string();
    out.extend_from_slice(head.trim_end_matches('}').as_bytes());
    // `trim_end_matches` also took the brace that closes `metadata`.
    out.extend_from_slice(b"},\"items\":[");
    let heads = [
        format!("{{\"apiVersion\":{},\"kind\":{},", json!(gv), json!(resource.kind)),
        format!("{{\"kind\":{},\"apiVersion\":{},", json!(resource.kind), json!(gv)),
    ];
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        let json = bytes(app, resource, object);
        let short = match resource.custom {
            Some(_) => None,
            None => heads.iter().find(|h| json.starts_with(h.as_bytes())),
        };
        match short {
            Some(head) => {
                out.extend_from_slice(b"{");
                out.extend_from_slice(&json[head.len()..]);
            }
            None => out.extend_from_slice(&json),
        }
    }
    out.extend_from_slice(b"]}");
    out.freeze()
}
