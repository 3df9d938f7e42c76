//! Slack over a real socket, with a server that behaves, and servers that do not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use engine::message::Tone;
use tokio::net::TcpListener;
use warp::Filter;
use warp::http::Response;

use super::*;

/// What the fake Slack was asked: method, authorization, body.
type Calls = Arc<Mutex<Vec<(String, String, Value)>>>;

/// Answers with `answers`, one after the other: status and body.
async fn fake(answers: Vec<(u16, &'static str)>) -> (String, Calls) {
    let calls = Calls::default();
    let (log, answers) = (Arc::clone(&calls), Arc::new(Mutex::new(VecDeque::from(answers))));
    let route = warp::post()
        .and(warp::path::full())
        .and(warp::header::optional("authorization"))
        .and(warp::body::json())
        .map(move |path: warp::path::FullPath, authorization: Option<String>, body| {
            let entry = (path.as_str().to_owned(), authorization.unwrap_or_default(), body);
            log.lock().unwrap().push(entry);
            let (status, body) = answers.lock().unwrap().pop_front().expect("one call too many");
            Response::builder().status(status).header("retry-after", "7").body(body).unwrap()
        });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(warp::serve(route).incoming(listener).run());
    (format!("http://{address}"), calls)
}

fn bot(base_url: &str) -> Slack {
    let target = SlackTarget::Bot { token: Secret::new("xoxb-hunter2".into()), channel: "#deploys".into() };
    Slack::new(SlackConfig { base_url: base_url.into(), ..SlackConfig::new(target) }).unwrap()
}

fn story(outcome: bool) -> Story {
    let at = jiff::Timestamp::UNIX_EPOCH;
    Story {
        key: "ns/dev/1".into(),
        environment: "ns/dev".into(),
        tone: if outcome { Tone::Good } else { Tone::Moving },
        headline: "rolling out".into(),
        message: "3 objects".into(),
        release: None,
        serving: None,
        next: "wait".into(),
        actor: "git".into(),
        gates: Vec::new(),
        started: at,
        at,
        sequence: 1,
        outcome,
        alone: false,
    }
}

const POSTED: &str = r#"{"ok":true,"channel":"C1","ts":"12.34"}"#;

fn posted() -> Posted {
    Posted { channel: "C1".into(), ts: "12.34".into() }
}

#[tokio::test]
async fn a_message_is_posted_once_then_updated_with_details_in_its_thread() {
    let (url, calls) = fake(vec![(200, POSTED), (200, POSTED), (200, POSTED)]).await;
    let slack = bot(&url);
    let first = slack.send(&story(false), None).await.unwrap();
    assert_eq!(first, posted());
    assert_eq!(slack.send(&story(true), Some(&first)).await.unwrap(), posted());
    let calls = calls.lock().unwrap().clone();
    let methods: Vec<&str> = calls.iter().map(|call| call.0.as_str()).collect();
    assert_eq!(methods, ["/api/chat.postMessage", "/api/chat.update", "/api/chat.postMessage"]);
    assert!(calls.iter().all(|call| call.1 == "Bearer xoxb-hunter2"));
    assert_eq!(calls[0].2["channel"], "#deploys");
    assert!(calls[0].2["blocks"].is_array() && calls[0].2.get("ts").is_none());
    assert_eq!((&calls[1].2["channel"], &calls[1].2["ts"]), (&json!("C1"), &json!("12.34")));
    assert_eq!(calls[2].2["thread_ts"], "12.34");
    assert!(calls[2].2["text"].as_str().unwrap().contains("3 objects"));
}

#[tokio::test]
async fn a_deleted_message_is_posted_anew() {
    let gone = r#"{"ok":false,"error":"message_not_found"}"#;
    let (url, calls) = fake(vec![(200, gone), (200, r#"{"ok":true,"channel":"C1","ts":"56.78"}"#)]).await;
    let again = bot(&url).send(&story(true), Some(&posted())).await.unwrap();
    assert_eq!(again.ts, "56.78");
    assert_eq!(calls.lock().unwrap()[1].2["channel"], "#deploys");
}

#[tokio::test]
async fn errors_say_what_to_do_and_whether_to_wait() {
    for (answer, transient, text) in [
        ((200, r#"{"ok":false,"error":"not_in_channel"}"#), false, "not_in_channel; invite the bot"),
        ((200, r#"{"ok":false,"error":"invalid_auth"}"#), false, "xoxb-"),
        ((200, r#"{"ok":false,"error":"internal_error"}"#), true, "internal_error"),
        ((200, r#"{"ok":false}"#), false, "unknown_error"),
        ((429, ""), true, "asks to wait 7 s"),
        ((200, r#"{"ok":false,"error":"ratelimited"}"#), true, "asks to wait 30 s"),
        ((503, "busy"), true, "status 503"),
        ((200, "<html>"), true, "not answered with JSON"),
        ((200, "{}"), true, "without `ok`"),
        ((200, r#"{"ok":true}"#), true, "no `channel` and `ts`"),
    ] {
        let (url, _) = fake(vec![answer]).await;
        let error = bot(&url).send(&story(false), None).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.is_transient(), transient, "{error}");
        assert_eq!(error.retry_after().is_some(), text.contains("wait"), "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[tokio::test]
async fn a_slack_that_hangs_or_is_away_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut slack = bot(&url);
    slack.config.timeout = Duration::from_millis(50);
    let error = slack.send(&story(false), None).await.unwrap_err();
    assert_eq!(error, SlackError::Unavailable("no answer within 0.05 s".into()));
    drop(listener);
    assert!(bot(&url).send(&story(false), None).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_webhook_tells_begin_and_outcome_only() {
    let (url, calls) = fake(vec![(200, "ok"), (200, "ok"), (404, "no_service")]).await;
    let target = SlackTarget::Webhook(Secret::new(format!("{url}/services/T/hunter2")));
    let slack = Slack::new(SlackConfig::new(target)).unwrap();
    let first = slack.send(&story(false), None).await.unwrap();
    slack.send(&story(false), Some(&first)).await.unwrap();
    assert_eq!(calls.lock().unwrap().len(), 1);
    slack.send(&story(true), Some(&first)).await.unwrap();
    let error = slack.send(&story(true), Some(&first)).await.unwrap_err();
    assert!(error.to_string().contains("no_service; the webhook was removed"), "{error}");
    assert_eq!(calls.lock().unwrap().len(), 3);
    assert!(calls.lock().unwrap().iter().all(|call| call.0 == "/services/T/hunter2" && call.1.is_empty()));
}

#[test]
fn a_wrong_set_up_is_refused_before_anything_is_sent() {
    let bot = |token: &str, channel: &str| SlackTarget::Bot {
        token: Secret::new(token.into()),
        channel: channel.into(),
    };
    for (target, text) in [
        (bot("", "#x"), "token"),
        (bot("xoxb-hunter2\n", "#x"), "token"),
        (bot("xoxb-1", ""), "channel"),
        (SlackTarget::Webhook(Secret::new("hunter2".into())), "http(s) URL"),
    ] {
        let error = Slack::new(SlackConfig::new(target)).err().unwrap().to_string();
        assert!(error.contains(text) && !error.contains("hunter2"), "{error}");
    }
}
