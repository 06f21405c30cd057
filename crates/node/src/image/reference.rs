//! Image names, normalised as Docker and Kubernetes do. Pure.

use std::fmt;

/// `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`.
    pub domain: String,
    /// `library/busybox`.
    pub path: String,
    /// `latest`; none beside a digest that came without one.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

/// Not an image name. The kubelet reports `InvalidImageName` with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name \"{0}\": {1}")]
pub struct InvalidReference(String, &'static str);

impl Reference {
    /// Parses a name and puts in what is left out (distribution/reference v0.6 `ParseDockerRef`): `busybox` is
    /// `docker.io/library/busybox:latest`.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let bad = |why| InvalidReference(text.to_string(), why);
        const FORMAT: &str = "invalid reference format";
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_string())),
            Some(_) => return Err(bad(FORMAT)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; before, it is a port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].rfind(':') {
            Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
            None => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            Some((first, _)) if first != first.to_lowercase() => return Err(bad("repository name must be lowercase")),
            _ => ("docker.io", name),
        };
        let domain = if domain == "index.docker.io" {
            "docker.io"
        } else {
            domain
        };
        let path = match path {
            path if domain == "docker.io" && !path.contains('/') => format!("library/{path}"),
            path => path.to_string(),
        };
        if path != path.to_lowercase() {
            return Err(bad("repository name must be lowercase"));
        }
        if !path.split('/').all(is_component) || !is_domain(domain) || !tag.is_none_or(is_tag) || name.is_empty() {
            return Err(bad(FORMAT));
        }
        if path.len() > 255 {
            return Err(bad("repository name must not be more than 255 characters"));
        }
        let tag = tag
            .map(ToString::to_string)
            .or_else(|| digest.is_none().then(|| "latest".to_string()));
        Ok(Self {
            domain: domain.into(),
            path,
            tag,
            digest,
        })
    }

    /// Without domain and `library/` where those are Docker's own, as people write it.
    pub fn familiar(&self) -> String {
        let text = self.to_string();
        let text = text.strip_prefix("docker.io/").unwrap_or(&text);
        text.strip_prefix("library/").unwrap_or(text).to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_digest(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && digits(hex))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_domain(text: &str) -> bool {
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case words joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return false;
    };
    let joints_are_fine = text
        .split(|c: char| word(u8::try_from(c).unwrap_or(0)))
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'));
    word(first) && word(last) && joints_are_fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("cpu-burner:lab", "docker.io/library/cpu-burner:lab", "cpu-burner:lab"),
            ("me/app:1", "docker.io/me/app:1", "me/app:1"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("ghcr.io/x/y_z", "ghcr.io/x/y_z:latest", "ghcr.io/x/y_z:latest"),
            ("index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
            (
                &format!("a@{digest}"),
                &format!("docker.io/library/a@{digest}"),
                &format!("a@{digest}"),
            ),
        ] {
            let parsed = Reference::parse(given).unwrap();
            assert_eq!(
                (parsed.to_string().as_str(), parsed.familiar().as_str()),
                (full, familiar)
            );
            assert_eq!(Reference::parse(full).unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_in_kubernetes_words() {
        for bad in [
            "",
            ":tag",
            "a//b",
            "/a",
            "a:",
            "a:-x",
            "a b",
            "-a",
            "a_-b",
            "a@sha256:12",
            "a..b",
            "ä",
            "x/../y",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
        let error = Reference::parse("Busybox").unwrap_err().to_string();
        assert_eq!(
            error,
            "couldn't parse image name \"Busybox\": repository name must be lowercase"
        );
    }
}
