//! Servers whose certificates come from an authority of one's own.
//!
//! The files beside this one are an authority, a certificate that it gave to `localhost`, and its key.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use gleitzeit::providers::ollama::OllamaConfig;
use gleitzeit_domain::error::ErrorCode;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{chat, chat_reply, provider, run};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/providers/ollama/tls").join(name)
}

/// A server that knows its version and one answer; gone with the process of the test.
fn start() -> String {
    gleitzeit::providers::tls::install_crypto_provider();
    let certificate = CertificateDer::from_pem_file(file("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                // A client that does not trust it hangs up.
                let _ = serve(StreamOwned::new(connection, tcp));
            });
        }
    });
    format!("https://localhost:{port}")
}

fn serve(stream: StreamOwned<ServerConnection, std::net::TcpStream>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap_or(0);
            }
        }
        stream.read_exact(&mut vec![0; length])?;
        let version = r#"{"version":"0.9.1"}"#.to_owned();
        let body =
            if first.starts_with("GET") { version } else { chat_reply("over TLS").to_string() };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    }
}

/// A file of the settings is trusted besides all others; without it the certificate is refused, with
/// the way out in the message.
#[actix_rt::test]
async fn a_file_of_the_settings_is_trusted() {
    let base_url = start();
    let stranger = provider(OllamaConfig { base_url: base_url.clone(), ..Default::default() });
    let error = stranger.initialize().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConfigurationError, "{error}");
    for part in ["certificate", "`ca_file`", "SSL_CERT_FILE"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    let ca_file = Some(file("ca.pem"));
    let friend = provider(OllamaConfig { base_url, ca_file, ..Default::default() });
    friend.initialize().await.unwrap();
    // Twice, so that the connection is used again.
    for _ in 0..2 {
        assert_eq!(run(&*friend, chat()).await.unwrap()["response"], "over TLS");
    }
}

/// What OpenSSL's variable names is trusted without any setting.
#[test]
fn the_machines_own_authorities_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let base_url = start();
    let workflow = folder.path().join("w.yaml");
    let chat = "{id: t, method: llm/chat, params: {messages: [{role: user, content: hi}]}}";
    std::fs::write(&workflow, format!("name: w\ntasks: [{chat}]\n")).unwrap();
    let ran = |trusts: bool| {
        let mut program = Command::new(assert_cmd::cargo::cargo_bin!("gleitzeit"));
        program.current_dir(folder.path()).args(["--store", "memory", "run"]).arg(&workflow);
        program.env("GLEITZEIT__PROVIDERS__OLLAMA__CONFIG__BASE_URL", &base_url);
        program.env("GLEITZEIT__ENGINE__PROVIDER_WAIT_TIMEOUT", "2");
        program.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        if trusts {
            program.env("SSL_CERT_FILE", file("ca.pem"));
        }
        program.output().unwrap()
    };
    let trusted = ran(true);
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    assert!(String::from_utf8_lossy(&trusted.stdout).contains("over TLS"));
    let refused = ran(false);
    assert_eq!(refused.status.code(), Some(1));
    let printed = [refused.stdout, refused.stderr].concat();
    assert!(String::from_utf8_lossy(&printed).contains("SSL_CERT_FILE"));
}
