//! Smart HTTP for libgit2, over the agent's own HTTP client.
//!
//! libgit2 is built without an HTTP client and a TLS library of its own; it hands the bytes of a
//! protocol step to a *subtransport* instead (as cargo does). One step is one request: the GET of
//! `info/refs`, then one POST per negotiation round. See `gitprotocol-http(5)`.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::runtime::Handle;

use super::credentials::{Auth, Credentials};

/// What one fetch or push may use. It is bound to the thread that the fetch runs on, since libgit2
/// chooses transports by nothing but the URL's scheme.
#[derive(Clone)]
pub(crate) struct HttpContext {
    /// Absent where the repository is not reached by HTTP.
    client: Option<reqwest::Client>,
    runtime: Handle,
    auth: Option<Auth>,
    /// When everything must be done.
    deadline: Instant,
    /// What went wrong, in more detail than libgit2's error can carry.
    failure: Arc<Mutex<Option<HttpFailure>>>,
}

/// What went wrong at the level of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HttpFailure {
    /// 401 or 403.
    Refused(u16),
    /// 404 or 410.
    NotFound,
    /// Some other status.
    Status(u16),
    /// The deadline passed, or the server was silent for too long.
    TimedOut,
    /// The server cannot be reached, or breaks off.
    Network(String),
    /// It answers, but it is no Git server, or it sends us elsewhere.
    NotGit(String),
}

impl HttpFailure {
    /// In a sentence, without the address.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Refused(status) => format!("the server answers {status}"),
            Self::NotFound => "the server answers 404".to_owned(),
            Self::Status(status) => format!("the server answers {status}"),
            Self::TimedOut => "the server did not answer in time".to_owned(),
            Self::Network(detail) | Self::NotGit(detail) => detail.clone(),
        }
    }
}

/// How long connecting, and each wait for more bytes, may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpTimeouts {
    pub(crate) connect: Duration,
    pub(crate) read: Duration,
}

/// The client for a repository, trusting its certificate authority if it has one.
pub(crate) fn http_client(
    credentials: Option<&Credentials>,
    timeouts: HttpTimeouts,
) -> Result<reqwest::Client, String> {
    crate::tls::install();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("git/2 (holdfast ", env!("CARGO_PKG_VERSION"), ")"))
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.read)
        // Followed by hand, so that no credentials go to another host.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(pem) = credentials.and_then(|credentials| credentials.ca.as_deref()) {
        let certificates = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|error| format!("`ca.crt` of the secret holds no PEM certificates: {error}"))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| format!("no HTTP client could be made: {}", chain(&error)))
}

impl HttpContext {
    pub(crate) fn new(
        client: Option<reqwest::Client>,
        runtime: Handle,
        auth: Option<Auth>,
        deadline: Instant,
    ) -> Self {
        Self { client, runtime, auth, deadline, failure: Arc::default() }
    }

    /// Runs `work` with this context for all HTTP transports that the current thread makes, and says
    /// what went wrong with HTTP, if anything did.
    pub(crate) fn scope<T>(&self, work: impl FnOnce() -> T) -> (T, Option<HttpFailure>) {
        register();
        struct Reset(Option<HttpContext>);
        impl Drop for Reset {
            fn drop(&mut self) {
                CONTEXT.set(self.0.take());
            }
        }
        let reset = Reset(CONTEXT.replace(Some(self.clone())));
        let result = work();
        drop(reset);
        (result, self.failure.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    fn fail(&self, failure: HttpFailure) -> io::Error {
        let error = io::Error::other(failure.sentence().replace('\0', ""));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        error
    }

    /// Waits for `future` on this (blocking) thread, until the deadline.
    fn wait<T>(&self, future: impl Future<Output = Result<T, reqwest::Error>>) -> io::Result<T> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.runtime.block_on(async { tokio::time::timeout(left, future).await }) {
            Err(_) => Err(self.fail(HttpFailure::TimedOut)),
            Ok(Err(error)) if error.is_timeout() => Err(self.fail(HttpFailure::TimedOut)),
            Ok(Err(error)) => Err(self.fail(HttpFailure::Network(chain(&error.without_url())))),
            Ok(Ok(value)) => Ok(value),
        }
    }

    fn client(&self) -> io::Result<&reqwest::Client> {
        let missing = || HttpFailure::Network("there is no HTTP client for this repository".to_owned());
        self.client.as_ref().ok_or_else(|| self.fail(missing()))
    }

    fn send(&self, request: RequestBuilder) -> io::Result<Response> {
        let request = match &self.auth {
            None => request,
            Some(Auth::Basic { username, password }) => request.basic_auth(username, Some(password.expose())),
            Some(Auth::Bearer(token)) => request.bearer_auth(token.expose()),
        };
        self.wait(request.send())
    }
}

thread_local! {
    static CONTEXT: RefCell<Option<HttpContext>> = const { RefCell::new(None) };
}

/// Makes libgit2 use this module for `http` and `https`, once for the process.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for scheme in ["http", "https"] {
            // SAFETY: `register` must not run beside the making of another transport. `Once` lets one
            // thread in and makes all others wait, and every use of a remote in this crate goes through
            // `HttpContext::scope`, which comes here first.
            #[allow(unsafe_code)]
            let registered = unsafe {
                git2::transport::register(scheme, |remote| {
                    let context = CONTEXT
                        .with_borrow(Clone::clone)
                        .ok_or_else(|| git2::Error::from_str("HTTP is used outside of a fetch or push"))?;
                    Transport::smart(remote, true, Subtransport { context, base: Arc::default() })
                })
            };
            if let Err(error) = registered {
                tracing::error!(%error, scheme, "Git over HTTP is not available");
            }
        }
        // SAFETY: these write plain integers that libgit2 reads when it opens a socket; `Once` as above
        // keeps writers and readers apart. They bound the native `git://` transport only.
        #[allow(unsafe_code)]
        let limited = unsafe {
            git2::opts::set_server_connect_timeout_in_milliseconds(10_000)
                .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(30_000))
        };
        if let Err(error) = limited {
            tracing::warn!(%error, "the time limits of the git:// protocol could not be set");
        }
    });
}

/// One connection to a repository, as libgit2 sees it.
struct Subtransport {
    context: HttpContext,
    /// The repository's URL after redirects; libgit2 keeps passing the original one.
    base: Arc<Mutex<Option<String>>>,
}

impl SmartSubtransport for Subtransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let (service, advertisement) = match action {
            Service::UploadPackLs => ("git-upload-pack", true),
            Service::UploadPack => ("git-upload-pack", false),
            Service::ReceivePackLs => ("git-receive-pack", true),
            Service::ReceivePack => ("git-receive-pack", false),
        };
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Box::new(Exchange {
            context: self.context.clone(),
            base: Arc::clone(&self.base),
            url: base.unwrap_or_else(|| url.trim_end_matches('/').to_owned()),
            service,
            advertisement,
            request: Vec::new(),
            answer: None,
        }))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// One request and its answer: written first, sent by the first read.
struct Exchange {
    context: HttpContext,
    base: Arc<Mutex<Option<String>>>,
    url: String,
    service: &'static str,
    advertisement: bool,
    request: Vec<u8>,
    answer: Option<Answer>,
}

struct Answer {
    response: Response,
    /// What was received and not read yet.
    chunk: bytes::Bytes,
}

impl Exchange {
    fn send(&mut self) -> io::Result<Response> {
        let response = if self.advertisement { self.advertise()? } else { self.call()? };
        let failure = match response.status() {
            status if status.is_success() => None,
            StatusCode::UNAUTHORIZED => Some(HttpFailure::Refused(401)),
            StatusCode::FORBIDDEN => Some(HttpFailure::Refused(403)),
            StatusCode::NOT_FOUND | StatusCode::GONE => Some(HttpFailure::NotFound),
            status if status.is_redirection() => {
                Some(HttpFailure::NotGit("the server redirects a request that cannot be repeated".to_owned()))
            }
            status => Some(HttpFailure::Status(status.as_u16())),
        };
        if let Some(failure) = failure {
            return Err(self.context.fail(failure));
        }
        let suffix = if self.advertisement { "advertisement" } else { "result" };
        let expected = format!("application/x-{}-{suffix}", self.service);
        let actual = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if actual != expected {
            let detail = format!(
                "the server does not speak Git over smart HTTP there: it sends `{actual}` instead of `{expected}`"
            );
            return Err(self.context.fail(HttpFailure::NotGit(detail)));
        }
        Ok(response)
    }

    /// Asks for the references, and follows redirects within the host. `http` to `https` is followed
    /// too, never the way back.
    fn advertise(&mut self) -> io::Result<Response> {
        let not_git = |context: &HttpContext, detail: String| context.fail(HttpFailure::NotGit(detail));
        let tail = format!("/info/refs?service={}", self.service);
        let mut url = Url::parse(&format!("{}{tail}", self.url))
            .map_err(|error| not_git(&self.context, format!("the address makes no URL: {error}")))?;
        for _ in 0..5 {
            let request = self.context.client()?.get(url.clone()).header(CACHE_CONTROL, "no-cache");
            let response = self.context.send(request)?;
            if !response.status().is_redirection() {
                *self.base.lock().unwrap_or_else(PoisonError::into_inner) =
                    url.as_str().strip_suffix(&tail).map(ToOwned::to_owned);
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = target.and_then(|target| url.join(target).ok());
            let Some(next) = next else {
                return Err(not_git(&self.context, "the server redirects to nowhere".to_owned()));
            };
            let same = next.scheme() == url.scheme() && next.port() == url.port();
            let upgrade = url.scheme() == "http" && next.scheme() == "https" && next.port().is_none();
            if next.host_str() != url.host_str() || !(same || upgrade) {
                let place = next.host_str().unwrap_or("nowhere");
                let detail = format!(
                    "the server redirects to {}://{place}, which is not followed; set the address there if it is right",
                    next.scheme()
                );
                return Err(not_git(&self.context, detail));
            }
            if !next.as_str().ends_with(&tail) {
                let detail =
                    "the server redirects to a page that is no repository, perhaps a login".to_owned();
                return Err(not_git(&self.context, detail));
            }
            url = next;
        }
        Err(not_git(&self.context, "the server redirects in a circle".to_owned()))
    }

    fn call(&mut self) -> io::Result<Response> {
        let request = self
            .context
            .client()?
            .post(format!("{}/{}", self.url, self.service))
            .header(CONTENT_TYPE, format!("application/x-{}-request", self.service))
            .header(ACCEPT, format!("application/x-{}-result", self.service))
            .body(std::mem::take(&mut self.request));
        self.context.send(request)
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.answer.is_none() {
            let response = self.send()?;
            self.answer = Some(Answer { response, chunk: bytes::Bytes::new() });
        }
        let Some(answer) = &mut self.answer else { return Ok(0) };
        while answer.chunk.is_empty() {
            match self.context.wait(answer.response.chunk())? {
                Some(chunk) => answer.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(answer.chunk.len());
        buffer[..count].copy_from_slice(&answer.chunk.split_to(count));
        Ok(count)
    }
}

impl Write for Exchange {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.request.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error with its causes, as one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let detail = next.to_string();
        if !text.contains(&detail) {
            text.push_str(": ");
            text.push_str(&detail);
        }
        cause = next.source();
    }
    text
}
