//! HTTPS: a certificate authority of the server's own, and connections with and without it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The names by which pods know the API server.
const NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// What a server shows its clients, and what they trust it by.
#[derive(Clone)]
pub struct Identity {
    /// The authority's certificate as PEM.
    pub authority: String,
    acceptor: TlsAcceptor,
}

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of keys or certificates.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// Of the protocol.
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
}

impl Identity {
    /// Makes an authority, and a certificate by it for these addresses. The authority's key is forgotten at once.
    pub fn new(addresses: &[IpAddr]) -> Result<Identity, Error> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "kubernetes");
        authority.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer_key = KeyPair::generate()?;
        let root = authority.self_signed(&issuer_key)?;
        let issuer = Issuer::new(authority, issuer_key);

        let mut own = CertificateParams::new(NAMES.map(str::to_owned))?;
        own.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        own.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        own.use_authority_key_identifier_extension = true;
        own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let leaf = own.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

        // The provider is named, for a process may have none installed or another one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity { authority: pem(root.der()), acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// A client's connection.
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Begins a connection; `None` when the client does not speak TLS though it should.
    pub async fn begin(stream: TcpStream, identity: Option<&Identity>) -> Option<Stream> {
        let Some(identity) = identity else { return Some(Stream::Plain(stream)) };
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? == 1 && first[0].is_ascii_alphabetic() {
            refuse_plain(stream).await;
            return None;
        }
        match identity.acceptor.accept(stream).await {
            Ok(encrypted) => Some(Stream::Encrypted(Box::new(encrypted))),
            Err(error) => {
                tracing::debug!(%error, "a client did not come to terms about TLS");
                None
            }
        }
    }

    /// Has the connection end with a reset instead of in order.
    pub fn reset(&self) {
        let stream = match self {
            Stream::Plain(stream) => stream,
            Stream::Encrypted(encrypted) => encrypted.get_ref().0,
        };
        let _ = stream.set_zero_linger();
    }
}

/// Tells a client that speaks HTTP what it should speak, as Go's server does.
async fn refuse_plain(mut stream: TcpStream) {
    let answer = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    if let Err(error) = stream.write_all(answer).await {
        tracing::debug!(%error, "a client that does not speak TLS has gone");
    }
    let _ = stream.shutdown().await;
    // What it has sent is read, or closing would reset the connection before the answer is read.
    let mut rest = [0; 4096];
    while matches!(stream.try_read(&mut rest), Ok(read) if read > 0) {}
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Encrypted(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_readable() {
        let identity = Identity::new(&[IpAddr::from([127, 0, 0, 1])]).unwrap();
        assert!(identity.authority.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(identity.authority.lines().all(|line| line.len() <= 64));
        let other = Identity::new(&[]).unwrap();
        assert_ne!(identity.authority, other.authority);
    }
}
