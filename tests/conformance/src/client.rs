//! How a server is reached: an address, a token or a certificate, and raw HTTP.

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a server cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that was named cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A kubeconfig lacks something.
    #[error("{path}: {problem}")]
    Kubeconfig {
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificates or keys that are none.
    #[error("{what} cannot be used: {problem}")]
    Credentials {
        /// Which of them.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A request that is none.
    #[error("{method} {path} is not a request: {source}")]
    Request {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
        /// What is wrong.
        source: http::Error,
    },
    /// No answer.
    #[error("{method} {path} was not answered: {problem}; is the server running?")]
    Unanswered {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
        /// What happened.
        problem: String,
    },
}

/// How a server is reached, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Its address, as `https://127.0.0.1:6443`.
    pub url: String,
    /// A bearer token.
    pub token: Option<String>,
    /// PEM of the authority that signed the server's certificate; without one nothing is trusted.
    pub authority: Vec<u8>,
    /// PEM of a client certificate and its key.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Access {
    /// What the current context of a kubeconfig says.
    ///
    /// # Errors
    /// When the file, or one that it names, cannot be read or has no usable context.
    pub fn from_kubeconfig(path: &Path) -> Result<Access, Error> {
        let text = read(path)?;
        let refuse = |problem: String| Error::Kubeconfig { path: path.to_owned(), problem };
        let config: Value = serde_yaml::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
        let find = |list: &str, name: &Value, part: &str| {
            let entry = config[list].as_array().into_iter().flatten().find(|e| e["name"] == *name);
            entry.map(|e| e[part].clone()).ok_or_else(|| refuse(format!("there is no {part} named {name}")))
        };
        let context = find("contexts", &config["current-context"], "context")?;
        let cluster = find("clusters", &context["cluster"], "cluster")?;
        let user = find("users", &context["user"], "user")?;
        // Files are named relative to the kubeconfig.
        let beside = |name: &str| path.parent().unwrap_or(Path::new("")).join(name);
        let data = |from: &Value, key: &str| -> Result<Option<Vec<u8>>, Error> {
            if let Some(text) = from[format!("{key}-data")].as_str() {
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                return decoded.map(Some).map_err(|e| refuse(format!("{key}-data is not Base64: {e}")));
            }
            from[key].as_str().map(|name| read(&beside(name))).transpose()
        };
        let url = cluster["server"].as_str().ok_or_else(|| refuse("the cluster has no server".into()))?;
        let token = match (user["token"].as_str(), user["tokenFile"].as_str()) {
            (Some(token), _) => Some(token.to_owned()),
            (None, Some(name)) => Some(String::from_utf8_lossy(&read(&beside(name))?).trim().to_owned()),
            (None, None) => None,
        };
        let certificate = data(&user, "client-certificate")?.zip(data(&user, "client-key")?);
        if token.is_none() && certificate.is_none() && !user.is_null() && user != serde_json::json!({}) {
            return Err(refuse(
                "the user has neither a token nor a client certificate: others are not supported".into(),
            ));
        }
        let authority = data(&cluster, "certificate-authority")?.unwrap_or_default();
        Ok(Access { url: url.trim_end_matches('/').to_owned(), token, authority, certificate })
    }
}

/// The content of a file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// One request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query, percent-encoded but for spaces.
    pub path: String,
    /// Headers besides the credentials.
    pub headers: Vec<(String, String)>,
    /// Type of the body.
    pub content_type: Option<String>,
    /// Body.
    pub body: String,
    /// Whether it goes without credentials.
    pub anonymous: bool,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The body: JSON, or text.
    pub body: Value,
    /// `Warning` headers.
    pub warnings: Vec<String>,
}

/// What a watch saw until it ended: the HTTP status and the events.
pub type Watching = tokio::task::JoinHandle<(u16, Vec<Value>)>;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    access: Access,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client for a server. Nothing is sent yet.
    ///
    /// # Errors
    /// When certificates or keys are unusable.
    pub fn new(access: Access) -> Result<Client, Error> {
        let refuse = |what: &'static str, problem: String| Error::Credentials { what, problem };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&access.authority) {
            let certificate =
                certificate.map_err(|e| refuse("the server's certificate authority", e.to_string()))?;
            roots
                .add(certificate)
                .map_err(|e| refuse("the server's certificate authority", e.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| refuse("TLS", e.to_string()))?
            .with_root_certificates(roots);
        let tls = match &access.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let bad = |e: String| refuse("the client certificate", e);
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad(e.to_string()))?;
                let chain = chain.map_err(|e| bad(e.to_string()))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| bad(e.to_string()))?
            }
        };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
            .build(connector);
        Ok(Client { access, http })
    }

    async fn open(&self, request: &Request) -> Result<http::Response<hyper::body::Incoming>, Error> {
        let path = request.path.replace(' ', "%20");
        let mut builder =
            http::Request::builder().method(&*request.method).uri(format!("{}{path}", self.access.url));
        if let (Some(token), false) = (&self.access.token, request.anonymous) {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(kind) = &request.content_type {
            builder = builder.header("content-type", kind);
        }
        let (method, path) = (request.method.clone(), request.path.clone());
        let sent = builder.body(Full::from(request.body.clone())).map_err(|source| Error::Request {
            method: method.clone(),
            path: path.clone(),
            source,
        })?;
        self.http.request(sent).await.map_err(|e| Error::Unanswered { method, path, problem: chain(&e) })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, request: &Request) -> Result<Answer, Error> {
        let response = self.open(request).await?;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
        let collected = response.into_body().collect().await.map_err(|e| Error::Unanswered {
            method: request.method.clone(),
            path: request.path.clone(),
            problem: chain(&e),
        })?;
        let text = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { code, body, warnings })
    }

    /// Opens a watch, which is read on a task until it ends.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn watch(&self, request: &Request) -> Result<Watching, Error> {
        let response = self.open(request).await?;
        let code = response.status().as_u16();
        Ok(tokio::spawn(async move {
            let bytes = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
            let event = |l: &[u8]| {
                serde_json::from_slice(l).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(l).into()))
            };
            (code, lines.map(event).collect())
        }))
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        out = format!("{out}: {cause}");
        at = cause.source();
    }
    out
}
