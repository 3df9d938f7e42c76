//! The one way in which the demonstration makes HTTP clients.

use reqwest::{Client, ClientBuilder};

/// A client for addresses on this machine: no proxy stands between.
///
/// The TLS provider of the process is set first: with the project's one provider compiled in, the client
/// asks for that even where it speaks plain HTTP only.
pub fn builder() -> ClientBuilder {
    // An error says that the process has one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy()
}
