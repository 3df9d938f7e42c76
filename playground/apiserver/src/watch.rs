//! Watches: a stream of changes, from the past or the current state on.

use crate::app::App;
use crate::faults::{self, Facts, WatchFault};
use crate::read::{self, Selection};
use crate::request::{Request, Target};
use crate::respond::{self, Body, Broken, Format, Shape};
use crate::schema::catalogue::Resource;
use crate::status::{Cause, Refusal};
use crate::store::{Change, Event, Feed, Object};
use crate::{table, time};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);

/// How long a watch lasts when the client does not say, in seconds.
const DEFAULT_TIMEOUT: u64 = 1800;

struct Watch {
    app: Arc<App>,
    resource: Arc<Resource>,
    selection: Selection,
    format: Format,
    bookmarks: bool,
    feed: Feed,
    pending: VecDeque<Bytes>,
    /// Revision that the client has seen everything up to.
    seen: u64,
    end: Instant,
    next_bookmark: Instant,
    troubles: Troubles,
}

/// The faults on demand of one watch.
struct Troubles {
    facts: Facts,
    changes: tokio::sync::watch::Receiver<u64>,
    /// Number of the last rule that was looked at.
    met: u64,
    fault: Option<WatchFault>,
}

impl Troubles {
    fn look(&mut self, app: &App) {
        if self.fault.is_none() {
            self.fault = app.faults.decide_watch(&self.facts, &mut self.met);
        }
    }

    /// Counts an event that is about to be sent.
    fn count(&mut self) {
        if let Some(WatchFault::Drop(left) | WatchFault::Silence(left)) = &mut self.fault {
            *left = left.saturating_sub(1);
        }
    }
}

/// What a watch does next.
enum Next {
    Send(Bytes),
    Break,
    End,
}

/// The answer to a watch from a revision that is gone, as its one event.
pub fn expired() -> Response<Body> {
    let body = Refusal::gone("The resourceVersion for the provided watch is too old.").body();
    respond::raw(200, line(&json!({"type": "ERROR", "object": body})), "application/json")
}

/// Answers a watch request.
pub fn watch(
    app: &Arc<App>,
    target: &Target,
    request: &Request,
    format: Format,
) -> Result<Response<Body>, Refusal> {
    let query = &request.query;
    let selection = Selection::read(target, request)?;
    let wanted = query.get("resourceVersion");
    let from = match wanted {
        "" | "0" => None,
        text => Some(text.parse::<u64>().map_err(|_| {
            Refusal::internal(format!(
                "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })?),
    };
    let bookmarks = query.is_true("allowWatchBookmarks");
    let initial = query.is_true("sendInitialEvents");
    check_initial(request, initial)?;
    let resource = target.resource.clone();
    let feed = app.store_mut().watch(&resource.table(), if initial { None } else { from });
    let seconds = query.number("timeoutSeconds").filter(|s| *s > 0).map_or(DEFAULT_TIMEOUT, |s| s as u64);
    let (feed, gone) = match feed {
        Ok(feed) => (feed, None),
        Err(error) => {
            let body = Refusal::gone(error.to_string()).body();
            let (_, future) = tokio::sync::mpsc::channel(1);
            let feed = Feed { past: Vec::new(), future, objects: Vec::new(), revision: 0 };
            (feed, Some(json!({"type": "ERROR", "object": body})))
        }
    };
    let mut watch = Watch {
        app: app.clone(),
        seen: feed.revision,
        resource,
        selection,
        format,
        bookmarks,
        pending: VecDeque::new(),
        feed,
        end: Instant::now() + Duration::from_secs(seconds.min(86_400)),
        next_bookmark: Instant::now() + BOOKMARK,
        troubles: Troubles {
            facts: faults::of_target(target, request, "watch"),
            changes: app.faults.changes(),
            met: 0,
            fault: None,
        },
    };
    watch.troubles.look(app);
    match gone {
        Some(error) => watch.pending.push_back(line(&error)),
        None => watch.start(initial),
    }
    let frames = stream::unfold(watch, |mut watch| async move {
        match watch.next().await {
            Next::Send(bytes) => Some((Ok(Frame::data(bytes)), watch)),
            Next::Break => Some((Err(Broken), watch)),
            Next::End => None,
        }
    });
    let mut response = Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn check_initial(request: &Request, initial: bool) -> Result<(), Refusal> {
    let how = request.query.get("resourceVersionMatch");
    let mut causes = Vec::new();
    let cause = if initial && how != "NotOlderThan" {
        if !how.is_empty() {
            let allowed = ["NotOlderThan".to_owned()];
            causes.push(Cause::unsupported("resourceVersionMatch", &json!(how), &allowed));
        }
        Cause::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )
    } else if !how.is_empty() && !request.query.all("sendInitialEvents").iter().any(|_| true) {
        Cause::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )
    } else {
        return Ok(());
    };
    causes.insert(0, cause);
    Err(Refusal::invalid("meta.k8s.io", "ListOptions", "", causes))
}

fn line(event: &Value) -> Bytes {
    let mut out = serde_json::to_vec(event).unwrap_or_default();
    out.push(b'\n');
    Bytes::from(out)
}

impl Watch {
    fn start(&mut self, initial: bool) {
        for object in std::mem::take(&mut self.feed.objects) {
            if self.selection.matches(&self.app, &self.resource, &object) {
                let bytes = self.event("ADDED", &object);
                self.pending.push_back(bytes);
            }
        }
        if initial && self.bookmarks {
            let bookmark = self.bookmark(true);
            self.pending.push_back(bookmark);
        }
        for event in std::mem::take(&mut self.feed.past) {
            let bytes = self.translate(&event);
            self.pending.extend(bytes);
        }
    }

    async fn next(&mut self) -> Next {
        loop {
            match self.troubles.fault {
                Some(WatchFault::Drop(0)) => {
                    // Without a pause hyper would throw away the events that it has not sent yet.
                    tokio::task::yield_now().await;
                    return Next::Break;
                }
                Some(WatchFault::Silence(0)) => {
                    // Nothing comes for as long as a client without a deadline of its own would wait.
                    tokio::time::sleep_until(self.end).await;
                    return Next::End;
                }
                _ => {}
            }
            if let Some(bytes) = self.pending.pop_front() {
                self.troubles.count();
                return Next::Send(bytes);
            }
            tokio::select! {
                // What was decided about the watch holds for the events that come after.
                biased;
                // The sender lives as long as the server's state, which this watch holds.
                _ = self.troubles.changes.changed() => self.troubles.look(&self.app),
                event = self.feed.future.recv() => {
                    let Some(event) = event else { return Next::End };
                    if let Some(bytes) = self.translate(&event) {
                        self.pending.push_back(bytes);
                    }
                }
                () = tokio::time::sleep_until(self.end) => return Next::End,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    return Next::Send(self.bookmark(false));
                }
            }
        }
    }

    /// What an event is to this client: objects enter and leave its selection.
    fn translate(&mut self, event: &Event) -> Option<Bytes> {
        self.seen = self.seen.max(event.revision);
        let matches = |object: &Object| self.selection.matches(&self.app, &self.resource, object);
        let before = event.previous.as_deref().is_some_and(matches);
        let after = event.change != Change::Deleted && matches(&event.object);
        match (before, after) {
            (false, true) => Some(self.event("ADDED", &event.object)),
            (true, true) => Some(self.event("MODIFIED", &event.object)),
            (true, false) => {
                let Some(previous) = &event.previous else { return None };
                if event.change == Change::Deleted {
                    return Some(self.event("DELETED", &event.object));
                }
                // The client sees the last state that it selected, at the new revision.
                let mut value = previous.value.clone();
                value["metadata"]["resourceVersion"] = event.revision.to_string().into();
                let json = Bytes::from(serde_json::to_vec(&value).unwrap_or_default());
                let left = Arc::new(Object {
                    key: previous.key.clone(),
                    revision: event.revision,
                    written: event.object.written,
                    value,
                    json,
                });
                Some(self.event("DELETED", &left))
            }
            (false, false) => None,
        }
    }

    fn event(&self, kind: &str, object: &Arc<Object>) -> Bytes {
        let object = &faults::seen(&self.app, &self.resource, &self.troubles.facts, object);
        if self.format.shape == Shape::Whole {
            let json = read::bytes(&self.app, &self.resource, object);
            let mut out = BytesMut::with_capacity(json.len() + 40);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            out.extend_from_slice(&json);
            out.extend_from_slice(b"}\n");
            return out.freeze();
        }
        let shown = self.app.shown(&self.resource, &object.value);
        let shaped = respond::shaped(&shown, &self.resource, self.format, time::now());
        line(&json!({"type": kind, "object": shaped}))
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        let mut object = match (&self.resource.custom, self.format.shape) {
            (None, Shape::Whole) => self.resource.ty.zero(),
            _ => json!({}),
        };
        let mut metadata = json!({"resourceVersion": self.seen.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        if self.format.shape == Shape::Table {
            let empty = table::render(
                &self.resource,
                std::iter::empty(),
                metadata,
                time::now(),
                table::Include::None,
            );
            return line(&json!({"type": "BOOKMARK", "object": empty}));
        }
        let (kind, version) = if self.format.shape == Shape::Metadata {
            ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (self.resource.kind.clone(), self.resource.group_version())
        };
        object["kind"] = kind.into();
        object["apiVersion"] = version.into();
        object["metadata"] = metadata;
        line(&json!({"type": "BOOKMARK", "object": object}))
    }
}
