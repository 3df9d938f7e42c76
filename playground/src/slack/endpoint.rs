//! The requests of the endpoint and Slack's answers to them.

use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, RETRY_AFTER};
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use super::{Channels, Fault, KEPT, Message, Shared};

/// Slack refuses larger requests too.
const BODY: u64 = 1 << 20;
/// Slack cuts longer texts (<https://docs.slack.dev/changelog/2018-truncating-really-long-messages>).
const TEXT: usize = 40_000;

/// `POST /api/<method>` and `POST /services/<webhook>`.
pub(super) fn routes(
    shared: Arc<Shared>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let state = warp::any().map(move || Arc::clone(&shared));
    let method = warp::path!("api" / String)
        .and(warp::post())
        .and(warp::header::optional::<String>("authorization"))
        .and(warp::body::content_length_limit(BODY))
        .and(warp::body::bytes())
        .and(state.clone())
        .and_then(
            |method: String,
             authorization: Option<String>,
             body: warp::hyper::body::Bytes,
             shared: Arc<Shared>| async move {
                Ok::<_, Infallible>(api(&shared, &method, authorization.as_deref(), &body))
            },
        );
    let webhook = warp::path!("services" / String / String / String)
        .and(warp::post())
        .and(warp::body::content_length_limit(BODY))
        .and(warp::body::bytes())
        .and(state)
        .and_then(|_, _, _, body: warp::hyper::body::Bytes, shared: Arc<Shared>| async move {
            Ok::<_, Infallible>(webhook(&shared, &body))
        });
    method.or(webhook).unify()
}

fn api(shared: &Shared, method: &str, authorization: Option<&str>, body: &[u8]) -> Response {
    let mut channels = shared.channels();
    channels.requests += 1;
    let answer = if let Some(fault) = channels.faults.pop_front() {
        faulty(&fault)
    } else {
        let outcome = authorised(shared, authorization).and_then(|()| match method {
            "auth.test" => Ok(json!({"url": "http://localhost/", "team": "playground", "user": "holdfast", "bot_id": "B000"})),
            "chat.postMessage" => arguments(body).and_then(|arguments| post(&mut channels, &arguments)),
            "chat.update" => arguments(body).and_then(|arguments| update(&mut channels, &arguments)),
            _ => Err("unknown_method"),
        });
        ok_or_not(outcome)
    };
    let requests = channels.requests;
    drop(channels);
    shared.changed.send_replace(requests);
    answer
}

/// A webhook answers in plain text: `ok`, or an error with status 400.
fn webhook(shared: &Shared, body: &[u8]) -> Response {
    let mut channels = shared.channels();
    channels.requests += 1;
    let answer = if let Some(fault) = channels.faults.pop_front() {
        match fault {
            Fault::NotOk(error) => plain(StatusCode::BAD_REQUEST, error),
            other => faulty(&other),
        }
    } else {
        let posted = arguments(body).and_then(|mut arguments| {
            arguments.insert("channel".to_owned(), json!("webhook"));
            arguments.remove("thread_ts");
            post(&mut channels, &arguments)
        });
        match posted {
            Ok(_) => plain(StatusCode::OK, "ok".to_owned()),
            Err(error) => plain(StatusCode::BAD_REQUEST, error.to_owned()),
        }
    };
    let requests = channels.requests;
    drop(channels);
    shared.changed.send_replace(requests);
    answer
}

fn authorised(shared: &Shared, authorization: Option<&str>) -> Result<(), &'static str> {
    match authorization.map(|value| value.strip_prefix("Bearer ")) {
        None | Some(None) => Err("not_authed"),
        Some(Some(token)) if token == shared.token => Ok(()),
        Some(Some(_)) => Err("invalid_auth"),
    }
}

fn arguments(body: &[u8]) -> Result<Map<String, Value>, &'static str> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(_) => Err("json_not_object"),
        Err(_) => Err("invalid_json"),
    }
}

fn post(channels: &mut Channels, arguments: &Map<String, Value>) -> Result<Value, &'static str> {
    let channel = string(arguments, "channel").ok_or("channel_not_found")?;
    let (text, blocks) = content(arguments)?;
    let thread_ts = string(arguments, "thread_ts");
    if let Some(thread) = &thread_ts {
        let known =
            channels.messages.iter().any(|message| message.ts == *thread && message.channel == channel);
        if !known {
            return Err("thread_not_found");
        }
    }
    let posted = Timestamp::now();
    channels.counter += 1;
    let ts = format!("{}.{:06}", posted.as_second(), channels.counter % 1_000_000);
    let message = Message { channel, ts, thread_ts, text, blocks, edits: 0, posted };
    let answer = json!({"channel": message.channel, "ts": message.ts, "message": shown(&message)});
    if channels.messages.len() == KEPT {
        channels.messages.remove(0);
    }
    channels.messages.push(message);
    Ok(answer)
}

fn update(channels: &mut Channels, arguments: &Map<String, Value>) -> Result<Value, &'static str> {
    let channel = string(arguments, "channel").ok_or("channel_not_found")?;
    let ts = string(arguments, "ts").ok_or("message_not_found")?;
    let (text, blocks) = content(arguments)?;
    let message = channels
        .messages
        .iter_mut()
        .find(|message| message.ts == ts && message.channel == channel)
        .ok_or("message_not_found")?;
    message.text = text;
    message.blocks = blocks;
    message.edits += 1;
    Ok(json!({"channel": message.channel, "ts": message.ts, "text": message.text, "message": shown(message)}))
}

/// Text and blocks of a message; one of them must say something.
fn content(arguments: &Map<String, Value>) -> Result<(String, Value), &'static str> {
    let text: String = string(arguments, "text").unwrap_or_default().chars().take(TEXT).collect();
    let blocks = match arguments.get("blocks") {
        None | Some(Value::Null) => Value::Null,
        // At most 50 blocks: https://docs.slack.dev/reference/block-kit/blocks
        Some(Value::Array(blocks)) if blocks.len() <= 50 && blocks.iter().all(Value::is_object) => {
            Value::Array(blocks.clone())
        }
        Some(_) => return Err("invalid_blocks"),
    };
    let silent = text.is_empty() && blocks.as_array().is_none_or(Vec::is_empty);
    if silent { Err("no_text") } else { Ok((text, blocks)) }
}

fn string(arguments: &Map<String, Value>, name: &str) -> Option<String> {
    arguments.get(name)?.as_str().filter(|value| !value.is_empty()).map(str::to_owned)
}

fn shown(message: &Message) -> Value {
    json!({
        "type": "message",
        "bot_id": "B000",
        "ts": message.ts,
        "thread_ts": message.thread_ts,
        "text": message.text,
        "blocks": message.blocks,
    })
}

fn ok_or_not(outcome: Result<Value, &'static str>) -> Response {
    let body = match outcome {
        Ok(mut answer) => {
            if let Some(answer) = answer.as_object_mut() {
                answer.insert("ok".to_owned(), json!(true));
            }
            answer
        }
        Err(error) => json!({"ok": false, "error": error}),
    };
    warp::reply::json(&body).into_response()
}

fn faulty(fault: &Fault) -> Response {
    match fault {
        Fault::NotOk(error) => warp::reply::json(&json!({"ok": false, "error": error})).into_response(),
        Fault::RateLimited(seconds) => {
            let body = warp::reply::json(&json!({"ok": false, "error": "ratelimited"}));
            let limited = warp::reply::with_status(body, StatusCode::TOO_MANY_REQUESTS);
            warp::reply::with_header(limited, RETRY_AFTER, *seconds).into_response()
        }
        Fault::Broken => plain(StatusCode::INTERNAL_SERVER_ERROR, "upstream connect error".to_owned()),
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    let body = warp::reply::with_status(text, status);
    warp::reply::with_header(body, CONTENT_TYPE, "text/plain").into_response()
}

#[cfg(test)]
mod tests {
    use super::super::Slack;
    use super::*;

    async fn call(slack: &Slack, method: &str, token: Option<&str>, body: Value) -> Value {
        let request = crate::http_client::builder()
            .build()
            .unwrap()
            .post(format!("{}/api/{method}", slack.url()))
            .json(&body);
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        request.send().await.unwrap().json().await.unwrap()
    }

    #[tokio::test]
    async fn a_message_is_posted_updated_and_replied_to() {
        let slack = Slack::start("xoxb-1").await.unwrap();
        let token = Some("xoxb-1");
        let posted = call(&slack, "chat.postMessage", token, json!({"channel": "#d", "text": "a"})).await;
        assert_eq!(posted["ok"], true);
        let ts = posted["ts"].as_str().unwrap().to_owned();
        let edit = json!({"channel": "#d", "ts": ts, "text": "b", "blocks": [{"type": "divider"}]});
        assert_eq!(call(&slack, "chat.update", token, edit).await["ok"], true);
        let reply = json!({"channel": "#d", "thread_ts": ts, "text": "c"});
        assert_eq!(call(&slack, "chat.postMessage", token, reply).await["ok"], true);
        let messages = slack.messages();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].text.as_str(), messages[0].edits), ("b", 1));
        assert_eq!(messages[1].thread_ts.as_deref(), Some(ts.as_str()));
        assert_ne!(messages[0].ts, messages[1].ts);
    }

    #[tokio::test]
    async fn mistakes_get_slacks_own_words() {
        let slack = Slack::start("xoxb-1").await.unwrap();
        let token = Some("xoxb-1");
        let message = json!({"channel": "#d", "text": "a"});
        for (method, token, body, error) in [
            ("chat.postMessage", None, message.clone(), "not_authed"),
            ("chat.postMessage", Some("xoxb-2"), message.clone(), "invalid_auth"),
            ("chat.postMessage", token, json!({"text": "a"}), "channel_not_found"),
            ("chat.postMessage", token, json!({"channel": "#d"}), "no_text"),
            ("chat.postMessage", token, json!({"channel": "#d", "blocks": [1]}), "invalid_blocks"),
            (
                "chat.postMessage",
                token,
                json!({"channel": "#d", "text": "a", "thread_ts": "1.0"}),
                "thread_not_found",
            ),
            ("chat.update", token, json!({"channel": "#d", "text": "a", "ts": "1.0"}), "message_not_found"),
            ("chat.postMessage", token, json!([]), "json_not_object"),
            ("chat.dance", token, message.clone(), "unknown_method"),
        ] {
            let answer = call(&slack, method, token, body).await;
            assert_eq!((&answer["ok"], &answer["error"]), (&json!(false), &json!(error)));
        }
        assert!(slack.messages().is_empty());
    }

    #[tokio::test]
    async fn faults_come_once_and_in_order() {
        let slack = Slack::start("xoxb-1").await.unwrap();
        slack.fail_next([Fault::RateLimited(7), Fault::NotOk("is_archived".into())]);
        let client = crate::http_client::builder().build().unwrap();
        let send = || {
            let message = json!({"channel": "#d", "text": "a"});
            client
                .post(format!("{}/api/chat.postMessage", slack.url()))
                .bearer_auth("xoxb-1")
                .json(&message)
                .send()
        };
        let limited = send().await.unwrap();
        assert_eq!(limited.status(), 429);
        assert_eq!(limited.headers()["retry-after"], "7");
        assert_eq!(send().await.unwrap().json::<Value>().await.unwrap()["error"], "is_archived");
        assert_eq!(send().await.unwrap().json::<Value>().await.unwrap()["ok"], true);
        assert_eq!((slack.messages().len(), slack.requests()), (1, 3));
    }

    #[tokio::test]
    async fn a_webhook_takes_a_message_and_answers_in_plain_text() {
        let slack = Slack::start("xoxb-1").await.unwrap();
        let client = crate::http_client::builder().build().unwrap();
        let send = |body: Value| client.post(slack.webhook_url()).json(&body).send();
        assert_eq!(send(json!({"text": "a"})).await.unwrap().text().await.unwrap(), "ok");
        let refused = send(json!({})).await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.text().await.unwrap().as_str()), (400, "no_text"));
    }
}
