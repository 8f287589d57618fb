//! Who the API server is and who may ask it what: its certificate, the administrator's token, the
//! key of service account tokens, and kubeconfigs. I/O: writes them into the test's directory.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Result;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use serde_json::{Value, json};

use super::{API, LOOPBACK};
use crate::dir::TestDir;

/// What the control plane is started with.
pub(super) struct Credentials {
    /// Of the API server, the controller manager and the scheduler. Signed by itself, so it is also
    /// what clients trust.
    pub(super) certificate: PathBuf,
    /// The key of that.
    pub(super) key: PathBuf,
    /// Signs the tokens of service accounts.
    pub(super) signing_key: PathBuf,
    /// Checks them.
    pub(super) checking_key: PathBuf,
    /// The API server's list of users.
    pub(super) users: PathBuf,
    /// Of the administrator.
    pub(super) kubeconfig: PathBuf,
    token: String,
}

impl Credentials {
    /// New ones.
    pub(super) fn new(dir: &TestDir) -> Result<Credentials> {
        let names = ["localhost".to_owned(), LOOPBACK.to_string(), API.ip().to_string()];
        let CertifiedKey { cert, signing_key: key } = generate_simple_self_signed(names)?;
        let signing_key = KeyPair::generate()?;
        let token = random()?;
        let mut credentials = Credentials {
            certificate: dir.write("server.crt", cert.pem()),
            key: dir.write("server.key", key.serialize_pem()),
            signing_key: dir.write("tokens.key", signing_key.serialize_pem()),
            checking_key: dir.write("tokens.pub", signing_key.public_key_pem()),
            users: dir.write("users.csv", format!("{token},admin,admin,system:masters\n")),
            kubeconfig: PathBuf::new(),
            token,
        };
        let admin = credentials.kubeconfig(&format!("https://{API}"), &credentials.token);
        credentials.kubeconfig = dir.write("kubeconfig", admin.to_string());
        Ok(credentials)
    }

    /// What clients trust.
    pub(super) fn authority(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.certificate)?)
    }

    /// For the administrator, at this one of the servers.
    pub(super) async fn admin(&self, server: &str) -> Result<Client> {
        client(self.kubeconfig(server, &self.token)).await
    }

    /// For whoever has this token.
    pub(super) fn kubeconfig(&self, server: &str, token: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test",
                           "cluster": { "server": server, "certificate-authority": self.certificate } }],
            "users": [{ "name": "test", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        })
    }
}

/// A client as a kubeconfig says.
pub(super) async fn client(kubeconfig: Value) -> Result<Client> {
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn random() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
