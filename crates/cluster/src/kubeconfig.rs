//! The cluster administrator's kubeconfig.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use apiserver::auth::Pki;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;

use crate::home::write_private;

/// The one context in it; the CLI renames it for each lab.
pub(crate) const CONTEXT: &str = "k8slab";

/// Writes a kubeconfig whose only context is cluster administrator of the API server at `address`. Mode 0600.
pub(crate) fn write(path: &Path, pki: &Pki, address: SocketAddr, now: Timestamp) -> io::Result<()> {
    let admin = pki
        .issue_client("k8slab-admin", &["system:masters"], now)
        .map_err(io::Error::other)?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": CONTEXT, "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(pki.ca_pem()),
        }}],
        "users": [{ "name": CONTEXT, "user": {
            "client-certificate-data": STANDARD.encode(&admin.cert_pem),
            "client-key-data": STANDARD.encode(&admin.key_pem),
        }}],
        "contexts": [{ "name": CONTEXT, "context": { "cluster": CONTEXT, "user": CONTEXT } }],
        "current-context": CONTEXT,
    });
    let text = serde_yaml::to_string(&config).map_err(io::Error::other)?;
    write_private(path, text.as_bytes())
}
