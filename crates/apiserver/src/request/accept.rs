//! The `Accept` header: in which form the client wants its answer.

use apimachinery::status::Status;
use http::HeaderMap;
use http::header::ACCEPT;

/// What the client takes, in its order of preference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accept(Vec<Clause>);

#[derive(Clone, Debug)]
struct Clause {
    media_type: String,
    parameters: Vec<(String, String)>,
}

/// `Table` and `PartialObjectMetadata` come in two versions that differ in name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataForm {
    V1,
    V1Beta1,
}

impl MetadataForm {
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Representation {
    /// The object itself, as JSON.
    Object,
    /// For people to look at.
    Table(MetadataForm),
    /// `PartialObjectMetadata` or, of lists, `PartialObjectMetadataList`.
    Metadata(MetadataForm),
}

impl Accept {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let text = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect::<Vec<_>>()
            .join(",");
        Self(
            text.split(',')
                .map(str::trim)
                .filter(|clause| !clause.is_empty())
                .map(Clause::parse)
                .collect(),
        )
    }

    /// The first form that we can give.
    pub(crate) fn representation(&self) -> Result<Representation, Status> {
        if self.0.is_empty() {
            return Ok(Representation::Object);
        }
        self.0
            .iter()
            .find_map(Clause::representation)
            .ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))
    }

    /// Whether `media_type` is taken, a missing header taking everything.
    pub(crate) fn takes(&self, media_type: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|clause| clause.covers(media_type))
    }

    /// Whether `media_type` is named, wild cards aside.
    pub(crate) fn names(&self, media_type: &str) -> bool {
        self.0.iter().any(|clause| clause.media_type == media_type)
    }

    /// Whether the client prefers the aggregated form of discovery.
    pub(crate) fn aggregated_discovery(&self) -> bool {
        self.0.iter().find_map(|clause| clause.discovery()).unwrap_or(false)
    }
}

impl Clause {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
            .collect();
        Self { media_type, parameters }
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn covers(&self, media_type: &str) -> bool {
        let group = media_type.split('/').next().unwrap_or_default();
        self.media_type == media_type || self.media_type == "*/*" || self.media_type == format!("{group}/*")
    }

    fn representation(&self) -> Option<Representation> {
        if !self.covers("application/json") {
            return None;
        }
        let Some(form) = self.parameter("as") else {
            return Some(Representation::Object);
        };
        if self.parameter("g") != Some("meta.k8s.io") {
            return None;
        }
        let version = match self.parameter("v")? {
            "v1" => MetadataForm::V1,
            "v1beta1" => MetadataForm::V1Beta1,
            _ => return None,
        };
        match form {
            "Table" => Some(Representation::Table(version)),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Representation::Metadata(version)),
            _ => None,
        }
    }

    /// Whether this clause asks for aggregated (`true`) or plain discovery, `None` if we cannot serve it.
    fn discovery(&self) -> Option<bool> {
        if !self.covers("application/json") {
            return None;
        }
        match self.parameter("as") {
            None => Some(false),
            Some("APIGroupDiscoveryList") => (self.parameter("g") == Some("apidiscovery.k8s.io")
                && self.parameter("v") == Some("v2"))
            .then_some(true),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        Accept::read(&headers)
    }

    #[test]
    fn the_first_servable_clause_decides() {
        for (text, expected) in [
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Representation::Object,
            ),
            ("application/json, */*", Representation::Object),
            ("*/*", Representation::Object),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Representation::Table(MetadataForm::V1),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Representation::Metadata(MetadataForm::V1),
            ),
            ("application/json; charset=utf-8", Representation::Object),
        ] {
            assert_eq!(accept(text).representation().unwrap(), expected, "{text}");
        }
        assert_eq!(
            Accept::read(&HeaderMap::new()).representation().unwrap(),
            Representation::Object
        );
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf")
                .representation()
                .unwrap_err()
                .code,
            406
        );
    }

    #[test]
    fn discovery_is_aggregated_for_those_who_ask() {
        let go = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(accept(go).aggregated_discovery());
        assert!(!accept("application/json").aggregated_discovery());
        assert!(
            !accept("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json")
                .aggregated_discovery()
        );
    }
}
