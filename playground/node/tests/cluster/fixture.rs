//! The programs that the tests' pods run: this test program itself, told by its environment to be one of them.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use node::Program;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// The server as a program for the image map.
pub fn server() -> Program {
    itself("fixture::act_as_server").with_env("FIXTURE", "server").with_env("ADDRESS", "$(POD_IP):5000")
}

/// A node of its own process, to be killed.
pub fn itself(test: &str) -> Program {
    Program::new(std::env::current_exe().unwrap()).with_args([
        "--ignored",
        "--exact",
        test,
        "--nocapture",
        "--test-threads=1",
    ])
}

/// Answers `/` with its version and `/env/NAME` with a variable, until SIGTERM; then it drains.
#[test]
#[ignore = "not a test: the program that the pods of the other tests run"]
fn act_as_server() {
    if std::env::var("FIXTURE").as_deref() != Ok("server") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve());
}

async fn serve() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let address: SocketAddr = std::env::var("ADDRESS").unwrap().parse().unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let drain = tokio::sync::watch::Sender::new(false);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = terminate.recv() => break,
        };
        let mut drained = drain.subscribe();
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = drained.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(listener);
    drain.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let text = if let Some(name) = path.strip_prefix("/env/") {
        std::env::var(name).unwrap_or_default()
    } else if let Some(file) = path.strip_prefix("/file/") {
        let folder = std::env::var("CONFIG_DIR").unwrap_or_default();
        std::fs::read_to_string(std::path::Path::new(&folder).join(file)).unwrap_or_default()
    } else if path == "/headers" {
        format!("{:?}", request.headers())
    } else {
        std::env::var("VERSION").unwrap_or_default()
    };
    Ok(Response::new(Full::new(Bytes::from(text))))
}
