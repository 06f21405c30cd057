//! Query parameters: the options of the verbs.

use apimachinery::field::{self, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::status::Status;

/// The parameters in the order given. kube-rs sends an empty first one (`?&watch=true`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Never fails: what is not a parameter is ignored, as upstream does.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(
            pairs
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The first value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of that name if it is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Every value of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Go's rule for query booleans: there and not `false` or `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.maybe_flag(name).unwrap_or(false)
    }

    /// As [`Query::flag`], `None` if it is not there.
    pub(crate) fn maybe_flag(&self, name: &str) -> Option<bool> {
        self.get(name)
            .map(|value| !(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        self.text(name)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")))
            })
            .transpose()
    }
}

/// `ListOptions`, read but not yet validated (see `verbs::list`).
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) allow_watch_bookmarks: bool,
    /// Empty if not given.
    pub(crate) resource_version: String,
    /// Empty if not given.
    pub(crate) resource_version_match: String,
    pub(crate) timeout_seconds: Option<u64>,
    /// 0 is no limit.
    pub(crate) limit: usize,
    /// Empty if not given.
    pub(crate) continue_token: String,
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    pub(crate) fn read(query: &Query) -> Result<Self, Status> {
        let text = |name| query.get(name).unwrap_or_default().to_owned();
        Ok(Self {
            label_selector: text("labelSelector"),
            field_selector: text("fieldSelector"),
            allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
            resource_version: text("resourceVersion"),
            resource_version_match: text("resourceVersionMatch"),
            timeout_seconds: query
                .number("timeoutSeconds")?
                .and_then(|seconds| u64::try_from(seconds).ok()),
            limit: query
                .number("limit")?
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(0),
            continue_token: text("continue"),
            send_initial_events: query.maybe_flag("sendInitialEvents"),
        })
    }
}

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// Empty if not given.
    pub(crate) field_manager: String,
    /// `None` if not given.
    pub(crate) force: Option<bool>,
}

impl WriteOptions {
    /// `kind` is the kind of the options, as error texts name it.
    pub(crate) fn read(query: &Query, kind: &str) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let dry_run = read_dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation") {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let path = Path::new("fieldValidation");
                errors.push(field::Error::not_supported(
                    &path,
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Warn
            }
        };
        let field_manager = query.get("fieldManager").unwrap_or_default().to_owned();
        check_manager(&field_manager, &mut errors);
        let force = query.maybe_flag("force");
        if !errors.is_empty() {
            return Err(invalid_options(kind, &errors));
        }
        Ok(Self {
            dry_run,
            field_validation,
            field_manager,
            force,
        })
    }
}

/// 422 about options.
pub(crate) fn invalid_options(kind: &str, errors: &[field::Error]) -> Status {
    Status::invalid(&GroupKind::new("meta.k8s.io", kind), "", errors)
}

/// `dryRun` has one legal value.
pub(crate) fn read_dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<field::Error>) -> bool {
    let mut dry_run = false;
    for value in values.filter(|value| !value.is_empty()) {
        match value {
            "All" => dry_run = true,
            other => errors.push(field::Error::not_supported(&Path::new("dryRun"), other, &["All"])),
        }
    }
    dry_run
}

fn check_manager(manager: &str, errors: &mut Vec<field::Error>) {
    let path = Path::new("fieldManager");
    if manager.chars().count() > 128 {
        errors.push(field::Error::too_long(&path, 128));
    }
    if manager.chars().any(|c| c.is_control()) {
        errors.push(field::Error::invalid(
            &path,
            manager,
            "should only contain printable characters",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_come_in_many_spellings() {
        for (text, expected) in [
            ("&watch=true", true),
            ("watch=True", true),
            ("watch=1", true),
            ("watch=0", false),
            ("watch=False", false),
        ] {
            assert_eq!(Query::parse(Some(text)).flag("watch"), expected, "{text}");
        }
        assert!(!Query::parse(Some("&limit=500")).flag("watch"));
        assert_eq!(ListOptions::read(&Query::parse(Some("&limit=500"))).unwrap().limit, 500);
    }

    #[test]
    fn wrong_options_are_unprocessable() {
        let read = |text| WriteOptions::read(&Query::parse(Some(text)), "CreateOptions");
        assert!(read("dryRun=All&fieldManager=x").unwrap().dry_run);
        let error = read("dryRun=Some").unwrap_err();
        assert_eq!(error.code, 422);
        assert_eq!(
            error.message,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": supported values: \"All\""
        );
        assert_eq!(read("fieldValidation=Loud").unwrap_err().code, 422);
        assert_eq!(
            ListOptions::read(&Query::parse(Some("limit=many"))).unwrap_err().code,
            400
        );
    }
}
