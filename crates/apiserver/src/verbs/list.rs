//! GET of a list: selectors, pages that stay consistent, the rules of `resourceVersion`.

use apimachinery::field::{Error, Path};
use apimachinery::quote::quote;
use apimachinery::status::Status;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Target;
use super::selection::Selection;
use crate::call::{Answer, Call};
use crate::request::{ListOptions, invalid_options};
use crate::respond::{self, ListMeta};
use crate::store::{Key, Object, Snapshot};

/// Where the next page starts, as Go clients and servers write it; clients do not look inside.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the first page; -1: whatever is there now.
    rv: i64,
    /// The first key that is wanted.
    start: String,
}

impl Token {
    fn after(revision: u64, last: &Key) -> Self {
        Self {
            v: "meta.k8s.io/v1".to_owned(),
            rv: i64::try_from(revision).unwrap_or(i64::MAX),
            // No key lies between a key and itself with a zero byte.
            start: format!("{last}\0"),
        }
    }

    fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn read(text: &str) -> Result<Self, Status> {
        let invalid = |why: String| Status::bad_request(format!("continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(error.to_string()))?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(format!(
                "server does not recognize this encoded version {}",
                quote(&token.v)
            )));
        }
        if token.rv == 0 || token.rv < -1 || token.start.is_empty() {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned(),
            ));
        }
        Ok(token)
    }
}

pub(super) fn list(call: &Call, target: &Target) -> Answer {
    let options = ListOptions::read(&call.query)?;
    validate(&options, false)?;
    let selection = Selection::of(target, &options)?;
    let (objects, meta) = page(call, target, &options, &selection)?;
    respond::list(call, &target.resource, objects, &meta)
}

fn page(
    call: &Call,
    target: &Target,
    options: &ListOptions,
    selection: &Selection,
) -> Result<(Vec<(Key, Object)>, ListMeta), Status> {
    let token = match options.continue_token.as_str() {
        "" => None,
        text => Some(Token::read(text)?),
    };
    let Snapshot { revision, objects: all } = snapshot(call, target, options, token.as_ref())?;
    let start = token.as_ref().map_or("", |token| token.start.as_str());
    let mut objects = Vec::new();
    let mut rest = all.into_iter().filter(|(key, _)| key.as_str() >= start).peekable();
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    while objects.len() < limit
        && let Some((key, object)) = rest.next()
    {
        if selection.matches(&target.resource, &key, &object) {
            objects.push((key, object));
        }
    }
    let mut meta = ListMeta {
        revision,
        ..ListMeta::default()
    };
    // With a selector the objects that are left may all be unselected: the next page is then empty, which clients know.
    if rest.peek().is_some()
        && let Some((last, _)) = objects.last()
    {
        meta.continue_token = Some(Token::after(revision, last).write());
        meta.remaining = selection.is_everything().then(|| rest.count());
    }
    Ok((objects, meta))
}

/// Every object of the target at the revision that the request asks for.
fn snapshot(call: &Call, target: &Target, options: &ListOptions, token: Option<&Token>) -> Result<Snapshot, Status> {
    let store = &call.api.store;
    let stored = &target.resource.stored_as;
    let namespace = target.namespace.as_deref();
    if let Some(token) = token {
        let Ok(revision) = u64::try_from(token.rv) else {
            return Ok(store.snapshot(stored, namespace));
        };
        check_resource_version(&revision.to_string(), store.revision())?;
        return store
            .snapshot_at(stored, namespace, revision)
            .map_err(|_| continue_expired(token));
    }
    let revision = check_resource_version(&options.resource_version, store.revision())?;
    // An old list with a limit and no match rule is an exact one, so that its pages fit together.
    let exact =
        options.resource_version_match == "Exact" || (options.resource_version_match.is_empty() && options.limit > 0);
    match revision.filter(|_| exact) {
        Some(revision) => store
            .snapshot_at(stored, namespace, revision)
            .map_err(|expired| Status::expired(format!("too old resource version: {}", expired.wanted))),
        // What is here now is always new enough.
        None => Ok(store.snapshot(stored, namespace)),
    }
}

/// 410 for a page whose revision is forgotten, with a token to go on without consistency.
fn continue_expired(token: &Token) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let go_on = Token {
        v: token.v.clone(),
        rv: -1,
        start: token.start.clone(),
    };
    status.metadata.insert("continue".to_owned(), go_on.write().into());
    status
}

/// Reads a `resourceVersion` parameter: `None` for "" and "0"; not a number is a 422, the future a 504.
pub(super) fn check_resource_version(text: &str, current: u64) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let revision: u64 = text.parse().map_err(|_| {
        let detail = format!("strconv.ParseUint: parsing {}: invalid syntax", quote(text));
        invalid_options(
            "ListOptions",
            &[Error::invalid(&Path::new("resourceVersion"), text, detail)],
        )
    })?;
    if revision > current {
        return Err(
            Status::timeout(format!("Too large resource version: {revision}, current: {current}"))
                .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
                .retry_after(1),
        );
    }
    Ok(Some(revision).filter(|revision| *revision != 0))
}

/// `ValidateListOptions` of apimachinery.
pub(super) fn validate(options: &ListOptions, watch: bool) -> Result<(), Status> {
    let mut errors = Vec::new();
    let path = Path::new("resourceVersionMatch");
    let given = options.resource_version_match.as_str();
    let forbidden = |detail: &str| Error::forbidden(&path, detail);
    if let Some(send) = options.send_initial_events {
        let send_path = Path::new("sendInitialEvents");
        if !watch {
            errors.push(Error::forbidden(&send_path, "sendInitialEvents is forbidden for list"));
        } else if given.is_empty() {
            errors.push(forbidden(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        } else if given != "NotOlderThan" {
            errors.push(Error::not_supported(&path, given, &["NotOlderThan"]));
        } else if send && !options.allow_watch_bookmarks {
            let detail = "sendInitialEvents requires setting allowWatchBookmarks to true";
            errors.push(Error::forbidden(&send_path, detail));
        }
    } else if !given.is_empty() {
        if watch {
            errors.push(forbidden(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        } else if options.resource_version.is_empty() {
            errors.push(forbidden(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !options.continue_token.is_empty() {
            errors.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(given, "Exact" | "NotOlderThan") {
            errors.push(Error::not_supported(&path, given, &["Exact", "NotOlderThan", ""]));
        }
        if given == "Exact" && options.resource_version == "0" {
            errors.push(forbidden(
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(invalid_options("ListOptions", &errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_continue_token_is_read_back(revision in 1..1u64 << 62, namespace in "[a-z-]{1,20}", name in "[a-z.-]{1,40}") {
            let key = Key::new(Some(&namespace), &name);
            let token = Token::after(revision, &key);
            prop_assert_eq!(&Token::read(&token.write()).unwrap(), &token);
            prop_assert!(token.start.as_str() > key.as_str());
        }

        #[test]
        fn any_other_token_is_refused_without_panic(text in ".{0,60}") {
            prop_assert_eq!(Token::read(&text).unwrap_err().code, 400);
        }
    }
}
