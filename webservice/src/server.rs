//! Accepting connections, and going away without anybody noticing.
//!
//! At the end of a rollout's step, Kubernetes sends SIGTERM at the same moment as it begins to tell load
//! balancers that this pod is leaving. Until they know, requests still come, and each deserves an answer:
//!
//! 1. `/ready` fails and every answer asks to close its connection, but connections are still accepted;
//! 2. when the drain time is over, or load balancers have visibly moved on, the listener is closed, after
//!    what the kernel has already accepted;
//! 3. idle connections are closed, requests in flight finish.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::edge::Edge;
use crate::request::{Role, handle};

/// Connections open at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;

/// Longest wait for a request's head, which includes the idle time before it. Longer than the 60 s for which
/// nginx keeps a connection to its upstream, so that the proxy closes it first and none is lost in between.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// What connections without a request get after the listener was closed: enough for a request that was
/// already on its way.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Serves until the drain is complete.
pub(crate) async fn serve<R: Role>(listener: TcpListener, role: Arc<R>) {
    let edge = role.edge();
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let open = |connections: &mut JoinSet<()>, stream, peer: SocketAddr| {
        connections.spawn(connection(stream, peer.ip(), Arc::clone(&role), closing.clone()));
    };
    let accepting_may_end = edge.lifecycle.accepting_may_end(edge.settings.drain);
    tokio::pin!(accepting_may_end);
    loop {
        tokio::select! {
            () = &mut accepting_may_end => break,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => open(&mut connections, stream, peer),
                Err(error) => accept_failed(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // Clients of these see them as established: dropping them would be a reset.
    while let Ok(Ok((stream, peer))) = timeout(Duration::ZERO, listener.accept()).await {
        open(&mut connections, stream, peer);
    }
    drop(listener);
    close.send_replace(true);
    finish(edge, connections).await;
}

/// Waits for requests in flight, and shortly for connections that have none.
async fn finish(edge: &Edge, mut connections: JoinSet<()>) {
    let last_call = Instant::now() + LAST_CALL;
    let deadline = Instant::now() + LAST_CALL.max(edge.settings.shutdown);
    loop {
        let until = if edge.lifecycle.requests() == 0 { last_call } else { deadline };
        // Looks again now and then, because a request may end without its connection ending.
        let until = until.min(Instant::now() + LAST_CALL).max(Instant::now());
        match tokio::time::timeout_at(until, connections.join_next()).await {
            Ok(None) => return,
            Ok(Some(_)) => {}
            Err(_) if edge.lifecycle.requests() == 0 && Instant::now() >= last_call => return,
            Err(_) if Instant::now() >= deadline => {
                let requests = edge.lifecycle.requests();
                tracing::warn!(requests, "requests are cut off because the shutdown time is over");
                return;
            }
            Err(_) => {}
        }
    }
}

async fn connection<R: Role>(
    stream: TcpStream,
    peer: IpAddr,
    role: Arc<R>,
    mut closing: watch::Receiver<bool>,
) {
    let counted = role.edge().lifecycle.connection();
    // Small answers should not wait for more to send; failing to say so costs only time.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let role = Arc::clone(&role);
        async move { Ok::<_, Infallible>(handle(&*role, peer, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let told_to_close = async { drop(closing.wait_for(|closing| *closing).await) };
    let result = tokio::select! {
        result = &mut serving => result,
        () = told_to_close => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        // Clients come and go as they like.
        tracing::debug!(%error, "a connection ended early");
    }
    drop(counted);
}

/// A connection that was gone before it was accepted is no matter; anything else is a shortage that passes.
async fn accept_failed(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "connections cannot be accepted; is the limit of open files reached?");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
