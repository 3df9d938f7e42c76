//! One request to the API server: built, sent, repeated where that can help, and its answer read.

use std::time::Duration;

use http::{Method, Request, header};
use kube::client::Body;
use serde_json::Value;

use super::answer::{Attempt, judge};
use super::error::Error;
use super::{Cluster, Kind};
use crate::retry::Backoff;

/// How often a request is tried at most.
const ATTEMPTS: u32 = 7;
/// How long one attempt may take. Admission webhooks may take 30 s by themselves.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The longest `Retry-After` that is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a request is about, for its path and for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub kind: &'a Kind,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    pub subresource: Option<&'static str>,
}

impl<'a> Target<'a> {
    /// One object.
    pub fn object(kind: &'a Kind, namespace: Option<&'a str>, name: &'a str) -> Self {
        Self { kind, namespace, name: Some(name), subresource: None }
    }

    /// All objects of a kind, in a namespace or everywhere.
    pub fn collection(kind: &'a Kind, namespace: Option<&'a str>) -> Self {
        Self { kind, namespace, name: None, subresource: None }
    }

    /// A subresource of the object.
    pub fn subresource(mut self, name: &'static str) -> Self {
        self.subresource = Some(name);
        self
    }

    /// `Deployment.apps shop/backend`.
    pub fn what(&self) -> String {
        let kind = self.kind.gvk.group_kind();
        match (self.namespace, self.name) {
            (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
            (None, Some(name)) => format!("{kind} {name}"),
            (Some(namespace), None) => format!("{kind} in namespace {namespace}"),
            (None, None) => kind.to_string(),
        }
    }

    fn path(&self) -> Result<String, Error> {
        let mut path = self.kind.path(self.namespace)?;
        if let Some(name) = self.name {
            path.push('/');
            path.push_str(&segment(name)?);
        }
        if let Some(subresource) = self.subresource {
            path.push('/');
            path.push_str(subresource);
        }
        Ok(path)
    }

    pub fn resource(&self) -> String {
        let mut resource = self.kind.plural.clone();
        if let Some(subresource) = self.subresource {
            resource.push('/');
            resource.push_str(subresource);
        }
        if !self.kind.gvk.group.is_empty() {
            resource.push('.');
            resource.push_str(&self.kind.gvk.group);
        }
        resource
    }
}

/// A request that can be sent more than once.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub target: Target<'a>,
    pub verb: &'static str,
    method: Method,
    query: Vec<(&'static str, String)>,
    content_type: Option<&'static str>,
    accept: &'static str,
    body: Vec<u8>,
    pub user: Option<&'a str>,
    guarded: bool,
    queued: bool,
}

impl<'a> Call<'a> {
    fn new(target: Target<'a>, verb: &'static str, method: Method) -> Self {
        Self {
            target,
            verb,
            method,
            query: Vec::new(),
            content_type: None,
            accept: "application/json",
            body: Vec::new(),
            user: None,
            guarded: false,
            queued: true,
        }
    }

    pub fn get(target: Target<'a>) -> Self {
        Self::new(target, "get", Method::GET)
    }

    pub fn list(target: Target<'a>) -> Self {
        Self::new(target, "list", Method::GET)
    }

    pub fn create(target: Target<'a>, body: &Value) -> Self {
        Self::new(target, "create", Method::POST).write("application/json", body)
    }

    pub fn update(target: Target<'a>, body: &Value) -> Self {
        Self::new(target, "update", Method::PUT).write("application/json", body)
    }

    pub fn apply(target: Target<'a>, body: &Value, manager: &str, force: bool) -> Self {
        let mut call = Self::new(target, "patch", Method::PATCH).write("application/apply-patch+yaml", body);
        call.query.push(("fieldManager", manager.to_owned()));
        if force {
            call.query.push(("force", "true".to_owned()));
        }
        call
    }

    pub fn merge_patch(target: Target<'a>, body: &Value, manager: &str) -> Self {
        let mut call = Self::new(target, "patch", Method::PATCH).write("application/merge-patch+json", body);
        call.query.push(("fieldManager", manager.to_owned()));
        call
    }

    pub fn delete(target: Target<'a>, options: &Value) -> Self {
        Self::new(target, "delete", Method::DELETE).write("application/json", options)
    }

    fn write(mut self, content_type: &'static str, body: &Value) -> Self {
        self.content_type = Some(content_type);
        self.body = body.to_string().into_bytes();
        self.guarded = true;
        self
    }

    /// Makes it a dry run: nothing is persisted, so leadership does not matter.
    pub fn dry_run(mut self) -> Self {
        self.query.push(("dryRun", "All".to_owned()));
        self.guarded = false;
        self
    }

    /// Adds a query parameter.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// Asks for metadata only.
    pub fn metadata_only(mut self) -> Self {
        self.accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        self
    }

    /// Makes the request as somebody else.
    pub fn on_behalf_of(mut self, user: Option<&'a str>) -> Self {
        self.user = user;
        self
    }

    /// Sends it before others and without asking who leads: for the lease itself.
    pub fn urgent(mut self) -> Self {
        self.guarded = false;
        self.queued = false;
        self
    }

    fn request(&self) -> Result<Request<Body>, Error> {
        let mut uri = self.target.path()?;
        for (i, (key, value)) in self.query.iter().enumerate() {
            uri.push(if i == 0 { '?' } else { '&' });
            uri.push_str(key);
            uri.push('=');
            uri.push_str(&encode(value));
        }
        let malformed =
            |error: http::Error| Error::Malformed { what: self.target.what(), message: error.to_string() };
        let mut request =
            Request::builder().method(self.method.clone()).uri(uri).header(header::ACCEPT, self.accept);
        if let Some(content_type) = self.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(user) = self.user {
            // The server adds the groups of a ServiceAccount by itself.
            request = request.header("Impersonate-User", user);
        }
        request.body(Body::from(self.body.clone())).map_err(malformed)
    }
}

impl Cluster {
    /// Sends a request until it is answered with something that another attempt would not change.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Value, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            // The lease does not queue: whoever waits too long for it loses it.
            let permit = if call.queued { self.inner.requests.acquire().await.ok() } else { None };
            let timeout = if call.guarded {
                self.leadership().time_to_write().ok_or(Error::NotLeader)?.min(TIMEOUT)
            } else {
                TIMEOUT
            };
            let attempt = match tokio::time::timeout(timeout, self.attempt(&call)).await {
                Ok(attempt) => attempt?,
                Err(_) => Attempt::Again { wait: None, message: format!("no answer in {timeout:?}") },
            };
            match attempt {
                Attempt::Answer(value) => return Ok(value),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again { wait, message } => {
                    let delay = backoff.next_delay();
                    if backoff.attempts() >= ATTEMPTS {
                        return Err(Error::Unavailable {
                            verb: call.verb.to_owned(),
                            what: call.target.what(),
                            attempts: ATTEMPTS,
                            message,
                        });
                    }
                    drop(permit);
                    tracing::debug!(verb = call.verb, what = call.target.what(), message, "trying again");
                    tokio::time::sleep(wait.map_or(delay, |wait| wait.min(LONGEST_WAIT).max(delay))).await;
                }
            }
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Attempt, Error> {
        let response = match self.client().send(call.request()?).await {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Again { wait: None, message: chain(&error) }),
        };
        let (parts, body) = response.into_parts();
        let bytes = match body.collect_bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Attempt::Again { wait: None, message: chain(&error) }),
        };
        if parts.status.is_success() {
            return Ok(match serde_json::from_slice(&bytes) {
                Ok(value) => Attempt::Answer(value),
                Err(error) => {
                    Attempt::Failed(Error::Malformed { what: call.target.what(), message: error.to_string() })
                }
            });
        }
        Ok(judge(call, parts.status, &parts.headers, &bytes))
    }
}

/// The errors of a client say little without their causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> Result<String, Error> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '%']) {
        return Err(Error::InvalidName(name.chars().take(253).collect()));
    }
    Ok(encode(name))
}

/// Percent-encodes everything but RFC 3986's unreserved characters and the colon of RBAC names.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> Kind {
        Kind::known("apps/v1", "Deployment", "deployments")
    }

    #[test]
    fn hostile_names_cannot_leave_their_segment() {
        let kind = deployment();
        for bad in ["", ".", "..", "a/b", "../../api/v1/secrets", "a%2fb"] {
            assert!(Call::get(Target::object(&kind, Some("shop"), bad)).request().is_err(), "{bad:?}");
            assert!(Call::get(Target::object(&kind, Some(bad), "a")).request().is_err(), "{bad:?}");
        }
        let request = Call::get(Target::object(&kind, Some("shop"), "a?b=c#d ü")).request().unwrap();
        assert_eq!(
            request.uri().to_string(),
            "/apis/apps/v1/namespaces/shop/deployments/a%3Fb%3Dc%23d%20%C3%BC"
        );
    }

    /// A server that answers one connection after the other with these texts.
    async fn answering(answers: Vec<&'static str>) -> (Cluster, tokio::task::JoinHandle<usize>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        crate::tls::install();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let served = tokio::spawn(async move {
            let mut served = 0;
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if connection.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                connection.write_all(answer.as_bytes()).await.unwrap();
                served += 1;
            }
            served
        });
        let mut config = kube::Config::new(uri);
        config.default_retry = false;
        (Cluster::new(kube::Client::try_from(config).unwrap()), served)
    }

    #[tokio::test]
    async fn lost_answers_and_busy_servers_are_asked_again() {
        let (cluster, served) = answering(vec![
            "",
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy",
            "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{\"cut\":",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n{\"a\": 1}",
        ])
        .await;
        let kind = deployment();
        let answer = cluster.call(Call::get(Target::object(&kind, Some("shop"), "a"))).await.unwrap();
        assert_eq!(answer, json!({"a": 1}));
        assert_eq!(served.await.unwrap(), 5);
    }

    #[tokio::test]
    async fn nothing_is_written_without_leadership() {
        let (cluster, served) =
            answering(vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"]).await;
        let times = crate::cluster::LeaseTimes::default();
        let (_election, nobody) = crate::cluster::Election::new("ops", "holdfast", "a", times);
        let cluster = cluster.led_by(nobody);
        let kind = deployment();
        let target = Target::object(&kind, Some("shop"), "a");
        let apply = || Call::apply(target, &json!({}), "m", false);
        assert!(matches!(cluster.call(apply()).await, Err(Error::NotLeader)));
        assert!(matches!(cluster.call(Call::delete(target, &json!({}))).await, Err(Error::NotLeader)));
        // The one answer is still there for a dry run, which writes nothing.
        assert_eq!(cluster.call(apply().dry_run()).await.unwrap(), json!({}));
        assert_eq!(served.await.unwrap(), 1);
    }
}
