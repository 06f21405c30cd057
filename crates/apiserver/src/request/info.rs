//! Paths: `/api/v1/namespaces/NS/pods/NAME/log` taken apart as upstream's `RequestInfoFactory` does
//! (`apiserver/pkg/endpoints/request/requestinfo.go`).

use percent_encoding::percent_decode_str;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Below `/api/V/` or `/apis/G/V/`.
    Resource(ResourcePath),
    /// Everything else: discovery, OpenAPI, health, …
    NonResource,
}

/// A path to a resource, an object or a subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    /// `None` where the path names none.
    pub(crate) namespace: Option<String>,
    /// Plural.
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// What comes behind the subresource, undecoded, with its leading slash; only `proxy` has such paths.
    pub(crate) rest: Option<String>,
    /// Whether the path has the old `/watch/` prefix.
    pub(crate) watch: bool,
}

/// Takes a path apart. Empty segments are ignored, but for those behind a subresource.
pub(crate) fn route(path: &str) -> Route {
    parse(path).map_or(Route::NonResource, Route::Resource)
}

fn parse(path: &str) -> Option<ResourcePath> {
    let mut segments = Segments(path);
    let group = match segments.next()? {
        "api" => String::new(),
        "apis" => percent_decode(segments.next()?),
        _ => return None,
    };
    let version = percent_decode(segments.next()?);
    let mut found = ResourcePath {
        group,
        version,
        ..ResourcePath::default()
    };
    let mut first = segments.next()?;
    if first == "watch" {
        found.watch = true;
        first = segments.next()?;
    }
    let mut resource = percent_decode(first);
    if resource == "namespaces"
        && let Some(namespace) = segments.next().map(percent_decode)
    {
        let mut ahead = Segments(segments.0);
        match ahead.next() {
            // `/namespaces/NS` and `/namespaces/NS/status` are about the namespace itself.
            None | Some("status" | "finalize") => found.name = Some(namespace.clone()),
            Some(inner) => {
                segments = ahead;
                resource = percent_decode(inner);
            }
        }
        found.namespace = Some(namespace);
    }
    found.resource = resource;
    if found.name.is_none() {
        found.name = segments.next().map(percent_decode);
    }
    if found.name.is_some() {
        found.subresource = segments.next().map(percent_decode);
        if found.subresource.is_some() && !segments.0.is_empty() {
            found.rest = Some(segments.0.to_owned());
        }
    }
    Some(found)
}

pub(crate) fn percent_decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// What is left of a path.
struct Segments<'a>(&'a str);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start_matches('/');
        let end = rest.find('/').unwrap_or(rest.len());
        let (segment, rest) = rest.split_at(end);
        self.0 = rest;
        (!segment.is_empty()).then_some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> ResourcePath {
        match route(text) {
            Route::Resource(path) => path,
            Route::NonResource => panic!("expected a resource path, got `{text}`"),
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn objects_lists_and_subresources_are_told_apart() {
        let list = path("/apis/apps/v1/deployments");
        assert_eq!(
            (list.group.as_str(), list.resource.as_str(), list.name),
            ("apps", "deployments", None)
        );
        let log = path("/api/v1/namespaces/d/pods/p/log");
        assert_eq!(
            (log.namespace, log.name, log.subresource),
            (some("d"), some("p"), some("log"))
        );
        let proxy = path("/api/v1/namespaces/d/services/http:web:80/proxy/a//b%20c/");
        assert_eq!((proxy.name, proxy.rest), (some("http:web:80"), some("/a//b%20c/")));
    }

    #[test]
    fn a_namespace_is_in_its_own_namespace() {
        for text in [
            "/api/v1/namespaces/d",
            "/api/v1/namespaces/d/",
            "/api/v1/namespaces/d/status",
        ] {
            let path = path(text);
            assert_eq!(
                (path.resource.as_str(), path.name, path.namespace),
                ("namespaces", some("d"), some("d"))
            );
        }
        assert_eq!(path("/api/v1/namespaces").name, None);
        assert_eq!(path("/api/v1/namespaces/d/finalize").subresource, some("finalize"));
        assert_eq!(path("/api/v1/namespaces/d/pods").resource, "pods");
    }

    #[test]
    fn old_watch_paths_are_watches() {
        let watch = path("/api/v1/watch/namespaces/d/pods/p");
        assert!(watch.watch);
        assert_eq!((watch.resource.as_str(), watch.name), ("pods", some("p")));
    }

    #[test]
    fn other_paths_are_not_resources() {
        for text in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1/",
            "/openapi/v3",
            "/healthz",
            "",
        ] {
            assert_eq!(route(text), Route::NonResource, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read_without_panic(text in "(/[a-z%./0-9A-F]{0,6}){0,9}") {
            route(&text);
        }

        #[test]
        fn what_is_written_is_read(group in "[a-z]{1,5}", ns in "[a-z]{1,5}", name in "[a-z.-]{1,9}", sub in "[a-z]{1,5}") {
            let found = path(&format!("/apis/{group}/v1/namespaces/{ns}/things/{name}/{sub}"));
            prop_assert_eq!(found, ResourcePath {
                group, version: "v1".to_owned(), namespace: Some(ns), resource: "things".to_owned(),
                name: Some(name), subresource: Some(sub), ..ResourcePath::default()
            });
        }
    }
}
