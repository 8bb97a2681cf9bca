//! Chooses the cryptography under TLS, once for the process.
//!
//! Asked before anything builds a TLS client. An application that embeds gleitzeit may link two
//! implementations into one program; rustls then refuses to choose and panics, for plain `http`
//! addresses too, because a client prepares TLS before it knows what it will be asked for.

/// Makes *ring* the process's cryptography, unless one has been chosen already; then that stays.
///
/// May be called any number of times, from any thread.
pub fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been first; its choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every provider installs it, and an application may have done so before.
    #[test]
    fn installing_twice_is_installing_once() {
        install_crypto_provider();
        install_crypto_provider();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
