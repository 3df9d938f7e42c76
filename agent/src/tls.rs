//! The one crypto provider of the process.

use std::sync::Once;

/// Makes ring the crypto provider of rustls for the whole process. Repeating it does no harm.
///
/// Every client of the agent is built without a provider of its own, so this comes before the first of
/// them; the constructors in this crate that build clients call it themselves.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error only says that a provider is installed already, which is what is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
