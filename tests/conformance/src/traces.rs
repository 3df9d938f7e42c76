//! What a scenario leaves on a server, and how it is removed.

use crate::client::{Answer, Client, Error, Request};
use serde_json::{Value, json};

/// How often a deletion is tried while something holds it up, a tenth of a second apart.
const ATTEMPTS: u32 = 100;

/// Paths of objects that a scenario made, in order.
#[derive(Debug, Default)]
pub struct Traces {
    made: Vec<String>,
}

impl Traces {
    /// Notes what a request made.
    pub fn note(&mut self, request: &Request, answer: &Answer) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let name = answer.body["metadata"]["name"].as_str().unwrap_or_default();
        let persists = answer.body["metadata"]["uid"].is_string() && !query.contains("dryRun");
        if answer.code != 201 || !persists || name.is_empty() {
            return;
        }
        let path = if request.method == "POST" { format!("{path}/{name}") } else { path.to_owned() };
        if !self.made.contains(&path) {
            self.made.push(path);
        }
    }

    /// Removes it all, the last first. Where controllers run they get the time to clean up behind a namespace.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn remove(self, client: &Client, controllers: bool) -> Result<(), Error> {
        for path in self.made.iter().rev() {
            // The server itself cleans up behind a definition.
            let wait = if path.contains("/customresourcedefinitions/") {
                50
            } else if controllers && is_namespace(path) {
                20
            } else {
                0
            };
            remove(client, path, wait).await?;
        }
        Ok(())
    }
}

/// Deletes an object and sees to it that it goes: after some attempts nothing holds it up any more.
async fn remove(client: &Client, path: &str, wait: u32) -> Result<(), Error> {
    let plain =
        |method: &str, path: &str| Request { method: method.into(), path: path.into(), ..Request::default() };
    for attempt in 0..ATTEMPTS {
        let deletion = format!("{path}?gracePeriodSeconds=0&propagationPolicy=Background");
        if client.send(&plain("DELETE", &deletion)).await?.code == 404 {
            return Ok(());
        }
        let live = client.send(&plain("GET", path)).await?;
        if live.code == 404 {
            return Ok(());
        }
        if attempt >= wait {
            release(client, path, live.body).await?;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Ok(())
}

fn is_namespace(path: &str) -> bool {
    path.strip_prefix("/api/v1/namespaces/").is_some_and(|name| !name.contains('/'))
}

/// Takes the finalizers from an object that is being deleted.
async fn release(client: &Client, path: &str, mut live: Value) -> Result<(), Error> {
    if is_namespace(path) {
        live["spec"]["finalizers"] = json!([]);
        let request = Request {
            method: "PUT".into(),
            path: format!("{path}/finalize"),
            content_type: Some("application/json".into()),
            body: live.to_string(),
            ..Request::default()
        };
        client.send(&request).await?;
    }
    let request = Request {
        method: "PATCH".into(),
        path: path.into(),
        content_type: Some("application/merge-patch+json".into()),
        body: json!({"metadata": {"finalizers": null}}).to_string(),
        ..Request::default()
    };
    client.send(&request).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_and_stays_is_noted() {
        let mut traces = Traces::default();
        let answer = |code| Answer {
            code,
            body: json!({"metadata": {"name": "x", "uid": "u"}}),
            warnings: Vec::new(),
        };
        let request = |method: &str, path: &str| Request {
            method: method.into(),
            path: path.into(),
            ..Request::default()
        };
        traces.note(&request("POST", "/api/v1/namespaces/n/pods"), &answer(201));
        traces.note(&request("PATCH", "/api/v1/nodes/y?fieldManager=a"), &answer(201));
        traces.note(&request("PATCH", "/api/v1/nodes/z?fieldManager=a"), &answer(200));
        traces.note(&request("POST", "/api/v1/nodes?dryRun=All"), &answer(201));
        assert_eq!(traces.made, ["/api/v1/namespaces/n/pods/x", "/api/v1/nodes/y"]);
    }
}
