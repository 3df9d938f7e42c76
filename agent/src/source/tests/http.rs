//! Smart HTTP against `git http-backend`, and against servers that are something else.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use warp::Filter;
use warp::http::{HeaderMap, Response, StatusCode};

use super::repositories::text;
use super::*;
use crate::secret::Secret;

/// Serves the repositories in `root` over smart HTTP, asking for a password if one is given. `None` if
/// git is not installed.
pub(crate) async fn serve(root: PathBuf, password: Option<&'static str>) -> Option<String> {
    let installed = Command::new("git").arg("--version").stdout(Stdio::null()).status().await;
    if !installed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs git for `git http-backend`");
        return None;
    }
    let route =
        warp::method()
            .and(warp::path::full())
            .and(warp::query::raw().or(warp::any().map(String::new)).unify())
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .then(move |method: warp::http::Method, path: warp::path::FullPath, query, headers, body| {
                let root = root.clone();
                async move {
                    backend(&root, method.as_str(), path.as_str(), query, &headers, body, password).await
                }
            });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(warp::serve(route).incoming(listener).run());
    Some(format!("http://{address}"))
}

async fn backend(
    root: &Path,
    method: &str,
    path: &str,
    query: String,
    headers: &HeaderMap,
    body: bytes::Bytes,
    password: Option<&str>,
) -> Response<Vec<u8>> {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let status = |code: u16| Response::builder().status(code);
    if let Some(target) = path.strip_prefix("/moved") {
        return status(301).header("location", format!("{target}?{query}")).body(Vec::new()).unwrap();
    }
    if path.starts_with("/elsewhere") {
        return status(302).header("location", "http://localhost:1/info/refs").body(Vec::new()).unwrap();
    }
    use base64::Engine as _;
    let expected = password.map(|password| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("me:{password}")))
    });
    if expected.is_some_and(|expected| expected != header("authorization")) {
        return status(401).body(Vec::new()).unwrap();
    }
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "me")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&body).await.unwrap();
    let output = child.wait_with_output().await.unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(&value[..3]),
            name => response.header(name, value),
        };
    }
    response.body(output[end + 4..].to_vec()).unwrap()
}

pub(crate) fn credentials(password: &str) -> Credentials {
    let auth = Auth::Basic { username: "me".into(), password: Secret::new(password.into()) };
    Credentials { auth: Some(auth), ca: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_is_followed_over_http() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let Some(server) = serve(remote.path().parent().unwrap().into(), None).await else { return };
    let sources = Sources::new(config(data.path()));
    let url = format!("{server}/shop.git");
    let mut receiver = sources.subscribe(spec(&url, main_branch(), NEVER));
    assert_eq!(text(&ready(&mut receiver, first).await, "x"), "1");
    let second = remote.commit("main", "x", &"2".repeat(100_000));
    assert_eq!(sources.poke(Some(&url)), 1);
    assert_eq!(text(&ready(&mut receiver, second).await, "x").len(), 100_000);
    let mut moved = sources.subscribe(spec(&format!("{server}/moved/shop.git"), main_branch(), NEVER));
    ready(&mut moved, second).await;
    let mut elsewhere =
        sources.subscribe(spec(&format!("{server}/elsewhere/shop.git"), main_branch(), NEVER));
    let (problem, _) = failed(&mut elsewhere, "FetchFailed").await;
    assert!(
        problem.message.contains("redirects to http://localhost, which is not followed"),
        "{}",
        problem.message
    );
    let mut missing = sources.subscribe(spec(&format!("{server}/other.git"), main_branch(), NEVER));
    failed(&mut missing, "RepositoryNotFound").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_a_shared_mirror_without_the_password() {
    let (remote, data) = (Remote::new(), tempfile::tempdir().unwrap());
    let first = remote.commit("main", "x", "1");
    let Some(server) = serve(remote.path().parent().unwrap().into(), Some("hunter2")).await else { return };
    let sources = Sources::new(config(data.path()));
    let url = format!("{server}/shop.git");
    let authorized =
        SourceSpec { credentials: Some(credentials("hunter2")), ..spec(&url, main_branch(), NEVER) };
    ready(&mut sources.subscribe(authorized), first).await;
    let embedded = url.replace("http://", "http://me:hunter2@");
    ready(&mut sources.subscribe(spec(&embedded, main_branch(), NEVER)), first).await;
    for credentials in [None, Some(credentials("hunter3"))] {
        let mut receiver = sources.subscribe(SourceSpec { credentials, ..spec(&url, main_branch(), NEVER) });
        let (problem, last) = failed(&mut receiver, "AuthenticationFailed").await;
        assert!(last.is_none() && !problem.message.contains("hunter"), "{}", problem.message);
    }
    let pinned = Reference::Commit(first.to_string());
    let mut receiver = sources.subscribe(spec(&url, pinned, NEVER));
    let (_, last) = failed(&mut receiver, "AuthenticationFailed").await;
    assert!(last.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_page_is_no_repository() {
    let route =
        warp::any().map(|| warp::reply::with_status(warp::reply::html("<h1>Hi</h1>"), StatusCode::OK));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(warp::serve(route).incoming(listener).run());
    let data = tempfile::tempdir().unwrap();
    let sources = Sources::new(config(data.path()));
    let mut receiver = sources.subscribe(spec(&format!("http://{address}/shop"), main_branch(), NEVER));
    let (problem, _) = failed(&mut receiver, "FetchFailed").await;
    assert!(problem.message.contains("does not speak Git over smart HTTP"), "{}", problem.message);
}
