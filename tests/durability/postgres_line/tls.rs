//! A server with a certificate of an authority that nobody knows: it is used by those who name it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gleitzeit::settings::{Settings, StoreUrl};
use tempfile::TempDir;

use super::{open, refusal};
use crate::support::own_server::Server;

fn openssl(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let run = Command::new("openssl").args(arguments).current_dir(folder).output();
    match run {
        Err(error) => Err(format!("no openssl: install the package openssl ({error})")),
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { stderr, .. }) => panic!("{}", String::from_utf8_lossy(&stderr)),
    }
}

/// An authority, and a certificate of its own for a server at 127.0.0.1.
fn certificates(folder: &Path) -> Result<(), String> {
    const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    for authority in ["ca", "other"] {
        let (key, pem) = (format!("{authority}.key"), format!("{authority}.pem"));
        let subject = format!("/CN=authority of a test, {authority}");
        let own = ["req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &pem];
        openssl(folder, &[&own[..], &KEY].concat())?;
    }
    let ask = ["req", "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr"];
    openssl(folder, &[&ask[..], &KEY].concat())?;
    fs::write(folder.join("names"), "subjectAltName = IP:127.0.0.1\n").unwrap();
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "names",
            "-out",
            "server.pem",
        ],
    )
}

fn start(folder: &Path) -> Result<Server, String> {
    certificates(folder)?;
    Server::start_with(|data, own| {
        for name in ["server.pem", "server.key"] {
            let file = data.join(name);
            fs::copy(folder.join(name), &file).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            own(&file);
        }
        // Nobody gets in without it.
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n\
                     hostnossl postgres all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n".into()
    })
}

fn with(url: &StoreUrl, parameters: &str) -> StoreUrl {
    format!("{}?{parameters}", url.expose()).parse().unwrap()
}

/// The URL for a process of its own, which has other variables.
const URL: &str = "GLEITZEIT_TEST_TLS";

/// Opens a store in a process with these variables.
fn open_with(url: &StoreUrl, variables: &[(&str, PathBuf)]) -> Output {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args([TEST, "--exact", "--nocapture"]).env(URL, url.expose());
    process.env("RUST_BACKTRACE", "0").env_remove("SSL_CERT_FILE").env_remove("PGSSLROOTCERT");
    process.envs(variables.iter().map(|(name, value)| (name, value)));
    process.output().unwrap()
}

const TEST: &str = "postgres_line::tls::a_private_authority_is_trusted_if_it_is_named";

#[tokio::test]
async fn a_private_authority_is_trusted_if_it_is_named() {
    if let Ok(url) = std::env::var(URL) {
        return open(&url.parse().unwrap()).await.unwrap();
    }
    let folder = TempDir::new().unwrap();
    let server = match start(folder.path()) {
        Ok(server) => server,
        Err(why) => return println!("SKIPPED: a certificate of its own ({why})"),
    };
    let url = server.database().await;
    let file = |name: &str| folder.path().join(name);
    let named = |mode: &str, authority: &str| {
        with(&url, &format!("sslmode={mode}&sslrootcert={}", file(authority).display()))
    };
    for mode in ["verify-ca", "verify-full"] {
        // By the URL.
        open(&named(mode, "ca.pem")).await.unwrap();
        let checked = with(&url, &format!("sslmode={mode}"));
        for (unknown, what) in [(&checked, "nobody"), (&named(mode, "other.pem"), "another")] {
            let detail = refusal(unknown).await;
            assert!(detail.contains("invalid peer certificate"), "{what}: {detail}");
            assert!(detail.contains("storage.ca_file"), "{what}: {detail}");
        }
        // By the environment.
        let trusted = open_with(&checked, &[("SSL_CERT_FILE", file("ca.pem"))]);
        assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
        for variables in [&[][..], &[("SSL_CERT_FILE", file("other.pem"))]] {
            let refused = open_with(&checked, variables);
            let stderr = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success(), "{stderr}");
            assert!(stderr.contains("SSL_CERT_FILE"), "{stderr}");
        }
        // By a setting.
        let text = format!(
            "storage.url = {:?}\nstorage.ca_file = {:?}",
            checked.expose(),
            file("ca.pem").display().to_string()
        );
        let settings = Settings::from_toml(&text).unwrap();
        let builder = gleitzeit::Runtime::builder(settings).without_settings_providers();
        builder.start().await.unwrap().stop(std::time::Duration::ZERO).await;
    }
}
