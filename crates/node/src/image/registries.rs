//! `Registries`: where an image is pulled from and as whom. Pure, but for reading two files.
//!
//! Owns the meaning of `registries.yaml` (mirrors and logins, in the form k3s has made known) and of Docker's
//! `config.json` with its `auths`, which is also what a `kubernetes.io/dockerconfigjson` Secret holds. Credential
//! helpers are programs of their own and are not run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Reference;

/// Files that say how registries are reached. They are read anew with every pull, and need not be there.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// `registries.yaml`.
    pub mirrors: Option<PathBuf>,
    /// Docker's `config.json`.
    pub docker_config: Option<PathBuf>,
}

/// A user's name and password at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Logins by registry, as a Docker configuration has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins(Vec<(String, Login)>);

/// One place to ask for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `localhost:5000`.
    pub(super) host: String,
    /// Goes before the repository's path; mostly empty.
    pub(super) prefix: String,
    pub(super) plain_http: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mirrors {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mirror {
    endpoint: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostConfig {
    auth: Option<Auth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
    auth: String,
}

impl Registries {
    /// The places to ask, in order, and the logins this machine has.
    pub(super) fn read(&self, image: &Reference) -> Result<(Vec<Endpoint>, Logins), String> {
        let mirrors: Mirrors = match text(self.mirrors.as_deref())? {
            Some((path, text)) => {
                serde_yaml::from_str(&text).map_err(|error| format!("reading `{}`: {error}", path.display()))?
            }
            None => Mirrors::default(),
        };
        let mut logins = match text(self.docker_config.as_deref())? {
            Some((path, text)) => {
                Logins::parse(text.as_bytes()).map_err(|error| format!("reading `{}`: {error}", path.display()))?
            }
            None => Logins::default(),
        };
        for (host, config) in &mirrors.configs {
            let login = config.auth.as_ref().and_then(Auth::login);
            logins.0.extend(login.map(|login| (host.clone(), login)));
        }
        let mirror = mirrors.mirrors.get(&image.domain).or_else(|| mirrors.mirrors.get("*"));
        let mut endpoints: Vec<Endpoint> = mirror
            .map(|mirror| mirror.endpoint.iter().map(|text| Endpoint::parse(text)).collect())
            .unwrap_or_default();
        endpoints.push(Endpoint::parse(&image.domain));
        Ok((endpoints, logins))
    }
}

fn text(path: Option<&Path>) -> Result<Option<(&Path, String)>, String> {
    let Some(path) = path else { return Ok(None) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("reading `{}`: {error}", path.display())),
    }
}

impl Endpoint {
    /// `https://host:port/prefix`, or without a scheme. As Docker has it, this machine's own registry may speak plain
    /// HTTP, every other only where it is written so.
    fn parse(text: &str) -> Self {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let ours = name == "localhost" || name.starts_with("127.") || name == "[::1]";
        Self {
            host: host.to_owned(),
            prefix: prefix.trim_matches('/').trim_start_matches("v2/").to_owned(),
            plain_http: scheme.map_or(ours, |scheme| scheme == "http"),
        }
    }
}

impl Auth {
    fn login(&self) -> Option<Login> {
        if !self.username.is_empty() {
            return Some(Login {
                user: self.username.clone(),
                password: self.password.clone(),
            });
        }
        let text = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Login {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        })
    }
}

impl Logins {
    /// From the text of a `config.json`, or of the older `.dockercfg`, which is its `auths` alone.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Config {
            auths: BTreeMap<String, Auth>,
        }
        let auths = match serde_json::from_slice::<serde_json::Value>(text)? {
            config if config.get("auths").is_some() => serde_json::from_value::<Config>(config)?.auths,
            // Settings without any login.
            config if config.get("credsStore").or(config.get("credHelpers")).is_some() => BTreeMap::new(),
            auths => serde_json::from_value(auths).unwrap_or_default(),
        };
        let logins = auths
            .iter()
            .filter_map(|(place, auth)| Some((host(place).to_owned(), auth.login()?)));
        Ok(Self(logins.collect()))
    }

    /// Those that may open `endpoint` for `domain`: a mirror takes its own, or those of what it mirrors.
    pub(super) fn matching<'a>(&'a self, endpoint: &'a str) -> impl Iterator<Item = &'a Login> {
        let wanted = canonical(endpoint);
        self.0
            .iter()
            .filter(move |(place, _)| canonical(place) == wanted)
            .map(|(_, login)| login)
    }
}

/// Docker writes its own registry as `https://index.docker.io/v1/`.
fn host(place: &str) -> &str {
    let place = place.split_once("://").map_or(place, |(_, rest)| rest);
    place.split('/').next().unwrap_or(place)
}

fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_however_docker_wrote_the_registry() {
        let text = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0OndpdGg6Y29sb25z"},
            "localhost:5000": {"username": "u", "password": "p"},
            "empty.example": {}
        }}"#;
        let logins = Logins::parse(text).unwrap();
        let of = |host| {
            logins
                .matching(host)
                .map(|l| format!("{}/{}", l.user, l.password))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("docker.io"), ["me/secret:with:colons"]);
        assert_eq!(of("localhost:5000"), ["u/p"]);
        assert!(of("localhost").is_empty() && of("empty.example").is_empty());
        let old = Logins::parse(br#"{"r.example": {"auth": "YTpi"}}"#).unwrap();
        assert_eq!(old.matching("r.example").count(), 1);
        assert!(Logins::parse(b"{").is_err());
    }

    #[test]
    fn mirrors_come_first_and_only_this_machine_speaks_plain_http() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.yaml");
        std::fs::write(
            &path,
            "mirrors:\n  docker.io:\n    endpoint: [\"http://mirror.lan:5000/v2/hub\", localhost:7]\n",
        )
        .unwrap();
        let registries = Registries {
            mirrors: Some(path),
            docker_config: Some(dir.path().join("none.json")),
        };
        let (endpoints, _) = registries.read(&Reference::parse("busybox").unwrap()).unwrap();
        let short = |e: &Endpoint| format!("{} {} {}", e.host, e.prefix, e.plain_http);
        assert_eq!(
            endpoints.iter().map(short).collect::<Vec<_>>(),
            ["mirror.lan:5000 hub true", "localhost:7  true", "docker.io  false"]
        );
        let (endpoints, _) = registries.read(&Reference::parse("ghcr.io/a/b").unwrap()).unwrap();
        assert_eq!(endpoints.iter().map(short).collect::<Vec<_>>(), ["ghcr.io  false"]);
    }
}
