//! `pods/log`: the node has the logs; the API server hands the question on.

use crate::request::Query;
use crate::respond::{Body, Broken};
use crate::status::{About, Cause, Refusal};
use crate::time;
use crate::write::Call;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

/// Which part of which log is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Whether to go on with what is logged later.
    pub follow: bool,
    /// Whether the previous run of the container is meant.
    pub previous: bool,
    /// Whether each line starts with its time.
    pub timestamps: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only what was logged since then.
    pub since: Option<jiff::Timestamp>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

/// The bytes of a log as they come.
pub type LogStream = BoxStream<'static, Bytes>;

/// Whoever has the logs of pods.
pub trait PodLogs: Send + Sync {
    /// Opens a log. The error is a sentence for the user, as "container c has not started yet".
    fn open(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, String>>;
}

/// The container that is meant: the one of that name, or the only one.
pub fn container(pod: &Value, wanted: &str, name: &str) -> Result<String, Refusal> {
    let names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    match (wanted, &names[..]) {
        ("", [only]) => Ok((*only).to_owned()),
        ("", _) => Err(Refusal::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            names.join(" ")
        ))),
        (wanted, names) if names.contains(&wanted) => Ok(wanted.to_owned()),
        (wanted, _) => Err(Refusal::bad_request(format!("container {wanted} is not valid for pod {name}"))),
    }
}

/// `sinceTime`, or the time that `sinceSeconds` means.
fn since(query: &Query) -> Result<Option<jiff::Timestamp>, Refusal> {
    let text = query.get("sinceTime");
    if !text.is_empty() {
        let refuse = |_| {
            Refusal::bad_request(format!("sinceTime: {text:?} is no time; give one as 2006-01-02T15:04:05Z"))
        };
        return text.parse().map(Some).map_err(refuse);
    }
    let Some(seconds) = query.number("sinceSeconds") else { return Ok(None) };
    if seconds < 1 {
        let cause = Cause::invalid("sinceSeconds", &seconds.into(), "must be greater than 0");
        return Err(Refusal::invalid("", "PodLogOptions", "", vec![cause]));
    }
    Ok(time::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok())
}

/// Why a container has not started yet, by the pod's status.
///
/// Rules: `validateContainerLogStatus` of Kubernetes' `pkg/kubelet/kubelet_pods.go`.
fn waiting(pod: &Value, container: &str) -> Option<String> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut all = lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
    let status = all.find(|status| status["name"] == container)?;
    let why = match status["state"]["waiting"]["reason"].as_str()? {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        reason => reason,
    };
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    Some(format!("container {container:?} in pod {name:?} is waiting to start: {why}"))
}

/// GET of `pods/log`.
pub async fn answer(call: &Call<'_>) -> Result<Response<Body>, Refusal> {
    let pod = call.live()?;
    let query: &Query = &call.request.query;
    let container = container(&pod.value, query.get("container"), &call.target.name)?;
    let number = |key: &str| query.number(key).and_then(|n| u64::try_from(n).ok());
    let request = LogRequest {
        namespace: call.target.namespace.clone(),
        pod: call.target.name.clone(),
        container: container.clone(),
        follow: query.is_true("follow"),
        previous: query.is_true("previous"),
        timestamps: query.is_true("timestamps"),
        tail_lines: number("tailLines"),
        since: since(query)?,
        limit_bytes: number("limitBytes"),
    };
    // As on a real server, a pod that runs nowhere has said nothing.
    if pod.value["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return Ok(crate::respond::raw(200, Bytes::new(), "text/plain"));
    }
    let previous = request.previous;
    let Some(source) = &call.app.config.pod_logs else {
        let about = About::new("", "pods/log", &call.target.name);
        return Err(Refusal {
            message: "no node serves the logs of pods here".into(),
            ..Refusal::not_found(about)
        });
    };
    let stream = source.open(request).await.map_err(|why| {
        let waits = waiting(&pod.value, &container).filter(|_| !previous);
        Refusal::bad_request(waits.unwrap_or(why))
    })?;
    let frames = stream.map(|bytes| Ok::<_, Broken>(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
