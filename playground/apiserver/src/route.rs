//! From a request to its answer.

use crate::app::App;
use crate::auth::{self, User};
use crate::delete::{self, Deleted, Options};
use crate::rbac::{self, Action};
use crate::read::Selection;
use crate::request::{self, Request, Target};
use crate::respond::{self, Body, Format, Shape};
use crate::schema::catalogue::Catalogue;
use crate::status::{About, Refusal};
use crate::write::Call;
use crate::{discovery, faults, logs, metrics_api, openapi, read, review, streams, sub, table, time, watch};
use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a request.
pub async fn answer(app: &Arc<App>, request: Request) -> Response<Body> {
    match handle(app, &request).await {
        Ok(response) => response,
        Err(refusal) => respond::refusal(&refusal),
    }
}

async fn handle(app: &Arc<App>, request: &Request) -> Result<Response<Body>, Refusal> {
    let user = auth::authenticate(app, request)?;
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let api = matches!(path[..], ["api", _, _, ..] | ["apis", _, _, _, ..]);
    if !api {
        return other(app, request, &user, &path);
    }
    let target = Target::find(&app.catalogue(), &request.path)?;
    let verb = request::verb(&request.method, &target, &request.query);
    authorize(app, &user, verb, &target)?;
    let answered = resource(app, request, &user, &target, verb).await;
    let Some(warning) = deprecated(&target) else { return answered };
    let mut response = answered.unwrap_or_else(|refusal| respond::refusal(&refusal));
    respond::warn(&mut response, &[warning.to_owned()]);
    Ok(response)
}

/// What a real server tells those who use an API that has a successor.
fn deprecated(target: &Target) -> Option<&'static str> {
    match (target.resource.group.as_str(), target.resource.plural.as_str()) {
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

fn authorize(app: &App, user: &User, verb: &str, target: &Target) -> Result<(), Refusal> {
    let resource = &target.resource;
    let namespace =
        if resource.is("", "namespaces") { target.name.as_str() } else { target.namespace.as_str() };
    let action =
        Action::on(verb, &resource.group, &resource.plural, &target.subresource, namespace, &target.name);
    if rbac::allowed(app, user, &action) {
        return Ok(());
    }
    Err(Refusal::forbidden(About::new(&resource.group, &resource.plural, &target.name), &action.denial(user)))
}

/// Paths outside the resources: discovery, health, OpenAPI.
fn other(app: &App, request: &Request, user: &User, path: &[&str]) -> Result<Response<Body>, Refusal> {
    let whole = format!("/{}", path.join("/"));
    let action = Action { verb: request.method.as_str().to_lowercase(), path: whole, ..Action::default() };
    if !rbac::allowed(app, user, &action) {
        return Err(Refusal::forbidden(About::default(), &action.denial(user)));
    }
    if let ["playground", rest @ ..] = path {
        let (code, value) = faults::answer(app, request, rest)?;
        return Ok(respond::value(code, &value, false));
    }
    let format = respond::negotiate(request.header("accept"));
    let aggregated = format.as_ref().is_ok_and(|f| f.shape == Shape::Discovery);
    let catalogue = app.catalogue();
    let text = |text: &'static str| {
        Ok(respond::raw(200, Bytes::from_static(text.as_bytes()), "text/plain; charset=utf-8"))
    };
    let body = match path {
        [check @ ("healthz" | "livez" | "readyz"), ..] if request.query.is_true("verbose") => {
            let text = format!("[+]ping ok\n{check} check passed\n");
            return Ok(respond::raw(200, Bytes::from(text), "text/plain; charset=utf-8"));
        }
        ["healthz" | "livez" | "readyz", ..] => return text("ok"),
        ["version"] => discovery::version(),
        ["api"] if aggregated => return Ok(discovered(&discovery::aggregated(&catalogue, true))),
        ["apis"] if aggregated => return Ok(discovered(&discovery::aggregated(&catalogue, false))),
        ["api"] => discovery::api_versions(&app.config.address.to_string()),
        ["apis"] => discovery::groups(&catalogue),
        ["api", version] => discovery::resources(&catalogue, "", version).ok_or_else(Refusal::no_path)?,
        ["apis", group] => discovery::one_group(&catalogue, group).ok_or_else(Refusal::no_path)?,
        ["apis", group, version] => {
            discovery::resources(&catalogue, group, version).ok_or_else(Refusal::no_path)?
        }
        ["openapi", "v3"] => openapi::index(&catalogue),
        ["openapi", "v3", "api", version] => return openapi_document(&catalogue, "", version),
        ["openapi", "v3", "apis", group, version] => return openapi_document(&catalogue, group, version),
        ["openapi", "v2"] => {
            let (bytes, media) = openapi::everything(&catalogue, request.header("accept"));
            return Ok(respond::raw(200, bytes, media));
        }
        _ => return Err(Refusal::no_path()),
    };
    Ok(respond::value(200, &body, format.is_ok_and(|f| f.yaml)))
}

fn openapi_document(catalogue: &Catalogue, group: &str, version: &str) -> Result<Response<Body>, Refusal> {
    let document = openapi::document(catalogue, group, version).ok_or_else(Refusal::no_path)?;
    Ok(respond::raw(200, document, "application/json"))
}

fn discovered(body: &Value) -> Response<Body> {
    let bytes = Bytes::from(body.to_string());
    respond::raw(200, bytes, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
}

async fn resource(
    app: &Arc<App>,
    request: &Request,
    user: &User,
    target: &Target,
    verb: &str,
) -> Result<Response<Body>, Refusal> {
    let resource = target.resource.clone();
    let offered = match resource.subresources.iter().find(|s| s.name == target.subresource) {
        Some(sub) => sub.verbs.iter().any(|v| v == verb),
        None => {
            resource.verbs.iter().any(|v| v == verb) && (verb == "create") == (request.method == Method::POST)
        }
    };
    let collection = target.name.is_empty();
    let misplaced = match verb {
        "create" => !collection && target.subresource.is_empty(),
        "update" | "patch" => collection,
        _ => false,
    };
    let all_namespaces = resource.namespaced && target.namespace.is_empty();
    let misplaced = misplaced || (all_namespaces && !matches!(verb, "list" | "watch"));
    if !offered || misplaced {
        return Err(Refusal::method_not_allowed());
    }
    let format = respond::negotiate(request.header("accept")).or_else(|refusal| {
        let stream = matches!(target.subresource.as_str(), "log" | "exec" | "attach" | "portforward");
        if stream { Ok(Format::new(Shape::Whole, false)) } else { Err(refusal) }
    });
    let mut format = match format {
        Err(refusal) if refusal.code == 406 && matches!(verb, "list" | "watch") => {
            return Err(Refusal::no_representation());
        }
        other => other?,
    };
    if format.shape == Shape::Table {
        format.include = table::Include::read(request.query.get("includeObject"))?;
    }
    if resource.group == metrics_api::GROUP
        && resource.custom.is_none()
        && let Some(source) = &app.config.pod_metrics
    {
        return metrics_api::answer(app, source.as_ref(), target, request, format);
    }
    let mut call = Call { app, target, request, user, warnings: Vec::new() };
    let done = match (target.subresource.as_str(), verb) {
        ("" | "status", "watch") => watch::watch(app, target, request, format).map(Outcome::Answer),
        ("exec" | "attach" | "portforward", "get" | "create") => {
            streams::answer(app, &call).await.map(Outcome::Answer)
        }
        _ => perform(&mut call, verb, format).await,
    };
    let mut response = match done {
        Ok(Outcome::Answer(response)) => response,
        Ok(Outcome::Value(code, value)) => {
            let shaped = respond::shaped(&value, &resource, format, time::now());
            respond::value(code, &shaped, format.yaml)
        }
        // What a client is warned of it is told even when the request is refused.
        Err(refusal) => respond::refusal(&refusal),
    };
    let deprecation = resource.custom.as_ref().and_then(|c| c.deprecation.clone());
    call.warnings.splice(0..0, deprecation);
    respond::warn(&mut response, &call.warnings);
    Ok(response)
}

/// What came of a request on a resource.
enum Outcome {
    /// The answer as it is.
    Answer(Response<Body>),
    /// A status code and an object, still to be shown in the shape that is asked for.
    Value(u16, Value),
}

async fn perform(call: &mut Call<'_>, verb: &str, format: Format) -> Result<Outcome, Refusal> {
    let (app, target, request) = (call.app, call.target, call.request);
    let resource = &target.resource;
    let (code, value) = match (target.subresource.as_str(), verb) {
        ("", "list") => return read::list(app, target, request, format).map(Outcome::Answer),
        ("" | "status", "get") => return read::get(app, target, request, format).map(Outcome::Answer),
        ("", "create") if review::is_review(&resource.group, &resource.plural) => {
            (201, review::answer(call)?)
        }
        ("", "create") if resource.is("", "bindings") => (201, sub::bind(call)?),
        ("", "create") => (201, call.create()?.object),
        ("" | "status" | "finalize" | "ephemeralcontainers" | "resize", "update")
        | ("" | "status" | "ephemeralcontainers" | "resize", "patch") => {
            let written = if verb == "update" { call.update()? } else { call.patch()? };
            (if written.created { 201 } else { 200 }, written.object)
        }
        ("", "delete") => match delete::delete(call, &Options::read(call)?)? {
            Deleted::Object(value) | Deleted::Status(value) => (200, value),
        },
        ("", "deletecollection") => (200, delete_collection(call)?),
        ("scale", "get") => (200, sub::get_scale(call)?),
        ("scale", "update") => (200, sub::set_scale(call, false)?),
        ("scale", "patch") => (200, sub::set_scale(call, true)?),
        ("binding", "create") => (201, sub::bind(call)?),
        ("eviction", "create") => (201, sub::evict(call)?),
        ("token", "create") => (201, sub::token(call)?),
        ("log", "get") => return logs::answer(call).await.map(Outcome::Answer),
        ("ephemeralcontainers" | "resize" | "approval", "get") => {
            return read::get(app, target, request, format).map(Outcome::Answer);
        }
        _ => return Err(Refusal::method_not_allowed()),
    };
    Ok(Outcome::Value(code, value))
}

/// DELETE of a collection: all that the selectors find.
fn delete_collection(call: &Call<'_>) -> Result<Value, Refusal> {
    let selection = Selection::read(call.target, call.request)?;
    let options = Options::read(call)?;
    let resource = &call.target.resource;
    let (found, revision) = {
        let store = call.app.store();
        let table = resource.table();
        let range = store.range(&table, &selection.prefix, "");
        let found: Vec<_> = range.filter(|o| selection.matches(call.app, resource, o)).cloned().collect();
        (found, store.revision())
    };
    let mut items = Vec::new();
    for object in found {
        let name = object.value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let target = Target { name, ..call.target.clone() };
        let one = Call {
            app: call.app,
            target: &target,
            request: call.request,
            user: call.user,
            warnings: Vec::new(),
        };
        let mut shown = match delete::delete(&one, &options) {
            Ok(Deleted::Object(value)) => value,
            Ok(Deleted::Status(_)) => call.app.shown(resource, &object.value),
            Err(refusal) if refusal.code == 404 => continue,
            Err(refusal) => return Err(refusal),
        };
        if let (Value::Object(fields), None) = (&mut shown, &resource.custom) {
            fields.shift_remove("apiVersion");
            fields.shift_remove("kind");
        }
        items.push(shown);
    }
    Ok(json!({"kind": resource.list_kind, "apiVersion": resource.group_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": items}))
}
