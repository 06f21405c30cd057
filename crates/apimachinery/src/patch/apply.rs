//! Server-side apply, and the bookkeeping of who wrote which field.
//!
//! Source of the algorithm: `structured-merge-diff/v6/merge/update.go` and `apimachinery/pkg/util/managedfields`, 1.36.
//! Objects are taken in one version; entries that other versions left are read with the schema of this one.

mod compare;
mod field_set;
mod managed;
mod merge;
mod path;
mod remove;
#[cfg(test)]
mod replay_tests;
mod typed;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::compare::Comparison;
pub use self::field_set::FieldSet;
use self::managed::{Managed, Ownership};
pub use self::managed::{Manager, Operation};
pub use self::path::{PathElement, Scalar};
use self::typed::Type;
use crate::schema::{self, Schema};
use crate::status::{Cause, Reason, Status};
use crate::time;

/// Entries of updaters kept apart; older ones are merged.
const MAX_UPDATERS: usize = 10;
/// What kubectl's client-side apply notes in an annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// An annotation beyond this would make the object invalid; upstream drops the note instead.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager's name; empty becomes `unknown`.
    pub manager: &'a str,
    /// The version of the object and of the configuration, as `apps/v1`.
    pub api_version: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Fields that this endpoint does not let anybody write (`status` on the main resource that has a status
    /// subresource, all but `status` on that): nobody comes to own them.
    pub reset_fields: &'a FieldSet,
    /// The time that entries get.
    pub now: Timestamp,
}

/// Another manager owns a field that the configuration would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: Manager,
    /// Which field.
    pub path: Vec<PathElement>,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 400: the configuration is not one.
    #[error("{0}")]
    BadRequest(String),
    /// 409: others own what it would change. Sorted by manager, then path.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 500, as upstream answers: configuration or object do not fit the schema.
    #[error("{0}")]
    Mistyped(String),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::BadRequest(message) => Self::bad_request(message),
            Error::Conflicts(conflicts) => {
                let causes = conflicts.into_iter().map(|conflict| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: format!("conflict with {}", conflict.manager),
                    field: path::print(&conflict.path),
                });
                Self::apply_conflict(causes.collect(), message)
            }
            Error::Mistyped(message) => Self {
                code: 500,
                reason: Some(Reason::Unknown),
                ..Self::bad_request(message)
            },
        }
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        let (manager, path) = (&conflict.manager, path::print(&conflict.path));
        return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", path::print(&conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Applies `config` to `live` (`None`: the object is not there yet) and returns the new object with its
/// `managedFields`. When nothing changes but the time, that is `live` itself, so comparing tells whether to write.
///
/// `force` takes fields away from their owners instead of refusing with [`Error::Conflicts`]. Defaulting and validation
/// of the result are the caller's.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    schema: Schema<'_>,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Error> {
    let config_version = config.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if config_version != writer.api_version {
        return Err(Error::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {config_version}, expected: {}",
            writer.api_version
        )));
    }
    if config
        .get("metadata")
        .and_then(|metadata| metadata.get("managedFields"))
        .is_some_and(|f| !f.is_null())
    {
        return Err(Error::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let r#type = Type::of(schema);
    let errors = typed::check(config, r#type, false);
    if !errors.is_empty() {
        return Err(mistyped("patch", config, &errors));
    }

    let mut object = live.cloned().unwrap_or_else(|| blank(config, schema));
    let Some(mut managed) = Managed::read(&object) else {
        return Err(Error::Mistyped("failed to decode managed fields".to_owned()));
    };
    managed::take(&mut object);
    let errors = typed::check(&object, r#type, true);
    if !errors.is_empty() {
        return Err(mistyped("live", &object, &errors));
    }
    if managed.0.is_empty() {
        // What was there before anybody applied is owned too, so that the first apply meets conflicts.
        let nothing = blank(&object, schema);
        let before = Writer {
            manager: "before-first-apply",
            ..*writer
        };
        own_update(&nothing, &object, r#type, &before, &mut managed);
        managed.cap_updaters(MAX_UPDATERS);
    }

    let (mut result, mut managed) = match structured_apply(&object, config, r#type, &managed, writer, force) {
        Err(Error::Conflicts(conflicts)) if writer.manager == "kubectl" => {
            let left = beyond_last_applied(conflicts, &object, r#type, writer.api_version);
            if !left.is_empty() {
                return Err(Error::Conflicts(left));
            }
            structured_apply(&object, config, r#type, &managed, writer, true)?
        }
        other => other?,
    };
    if result != object
        && let Some(owned) = managed.0.get_mut(&applier(writer))
    {
        owned.time = Some(time::format(writer.now));
    }
    if writer.manager == "kubectl" {
        sync_last_applied(&mut result, config);
    }
    finish(&mut result, &managed, live);
    Ok(result)
}

/// Brings `managedFields` of `after` up to date after a write that was no apply: `before` (`None`: a create) was turned
/// into `after` by `writer`.
///
/// What `after` says of `managedFields` itself counts: `[]` or `[{}]` resets it, a valid list replaces it, anything else
/// is as if absent. Through a subresource it does not count. When nothing changes but a time, the old entries stay.
pub fn track_update(before: Option<&Value>, after: &mut Value, schema: Schema<'_>, writer: &Writer<'_>) {
    let ours = managed::take(after);
    let live = || before.and_then(Managed::read).unwrap_or_default();
    let mut managed = match &ours {
        _ if !writer.subresource.is_empty() => live(),
        Some(Value::Array(entries)) if is_reset(entries) => Managed::default(),
        Some(entries) => {
            let sent = Managed::read(&json!({"metadata": {"managedFields": entries}})).unwrap_or_default();
            if sent.0.is_empty() { live() } else { sent }
        }
        None => live(),
    };
    // An object that nobody is known to manage stays so until somebody applies.
    if before.is_none() || !managed.0.is_empty() {
        let nothing;
        let mut old = match before {
            Some(before) => before,
            None => {
                nothing = blank(after, schema);
                &nothing
            }
        };
        let stripped;
        if old
            .get("metadata")
            .is_some_and(|metadata| metadata.get("managedFields").is_some())
        {
            stripped = {
                let mut old = old.clone();
                managed::take(&mut old);
                old
            };
            old = &stripped;
        }
        own_update(old, after, Type::of(schema), writer, &mut managed);
        managed.cap_updaters(MAX_UPDATERS);
    }
    finish(after, &managed, before);
}

/// When `object` differs from `live` only in the times of its `managedFields`, puts the old times back: what changes
/// nothing is not written. For callers that change the object further after [`apply`] or [`track_update`].
pub fn keep_times(object: &mut Value, live: &Value) {
    let same = match (Managed::read(live), Managed::read(object)) {
        (Some(before), Some(after)) => before.same_but_for_times(&after),
        _ => false,
    };
    if !same {
        return;
    }
    let entries = managed::take(object);
    let mut unmanaged = live.clone();
    let before = managed::take(&mut unmanaged);
    let entries = if unmanaged == *object { before } else { entries };
    if let (Some(entries), Some(metadata)) = (entries, managed::metadata_mut(object)) {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

fn finish(object: &mut Value, managed: &Managed, live: Option<&Value>) {
    managed.write(object);
    if let Some(live) = live {
        keep_times(object, live);
    }
}

fn is_reset(entries: &[Value]) -> bool {
    match entries {
        [] => true,
        [only] => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The object before there was one: what Go's zero value of the kind prints.
fn blank(like: &Value, schema: Schema<'_>) -> Value {
    let mut blank = json!({});
    for name in ["apiVersion", "kind"] {
        if let Some(value) = like.get(name) {
            blank[name] = value.clone();
        }
    }
    schema::fill_zero_values(&mut blank, schema);
    blank
}

fn applier(writer: &Writer<'_>) -> Manager {
    Manager::new(writer.manager, Operation::Apply, writer.api_version, writer.subresource)
}

fn mistyped(what: &str, object: &Value, errors: &[String]) -> Error {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let meta = |name: &str| text(object.get("metadata").and_then(|metadata| metadata.get(name)));
    let api_version = text(object.get("apiVersion"));
    let slash = if api_version.contains('/') { "" } else { "/" };
    let errors = match errors {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Error::Mistyped(format!(
        "failed to create typed {what} object ({}/{}; {slash}{api_version}, Kind={}): {errors}",
        meta("namespace"),
        meta("name"),
        text(object.get("kind")),
    ))
}

/// `Updater.Update`: what changed between the two objects becomes the writer's, and nobody else's.
fn own_update(old: &Value, new: &Value, r#type: Type<'_>, writer: &Writer<'_>, managed: &mut Managed) {
    reconcile(managed, r#type);
    let comparison = Comparison::of(old, new, r#type).without(writer.reset_fields);
    let written = comparison.written();
    managed.0.retain(|_, owned| {
        owned.fields = owned.fields.difference(&written).difference(&comparison.removed);
        !owned.fields.is_empty()
    });
    let fields = strip(written.recursive_difference(writer.reset_fields));
    if fields.is_empty() {
        return;
    }
    let manager = Manager::new(
        writer.manager,
        Operation::Update,
        writer.api_version,
        writer.subresource,
    );
    let owned = managed.0.entry(manager).or_default();
    owned.fields = fields.union(&owned.fields);
    owned.api_version = writer.api_version.to_owned();
    owned.time = Some(time::format(writer.now));
}

/// `Updater.Apply`: merges, takes away what the manager no longer applies, looks for conflicts.
fn structured_apply(
    live: &Value,
    config: &Value,
    r#type: Type<'_>,
    managed: &Managed,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Managed), Error> {
    let mut managed = managed.clone();
    reconcile(&mut managed, r#type);
    let me = applier(writer);
    let merged = merge::merge(Some(live), Some(config), r#type).unwrap_or_else(|| json!({}));
    let ownership = Ownership {
        fields: typed::field_set(config, r#type).recursive_difference(writer.reset_fields),
        api_version: writer.api_version.to_owned(),
        time: managed.0.get(&me).and_then(|owned| owned.time.clone()),
    };
    let last = managed.0.insert(me.clone(), ownership);
    let new = match last {
        Some(last) if !last.fields.is_empty() => prune(merged, &managed, &last.fields, r#type),
        _ => merged,
    };

    let comparison = Comparison::of(live, &new, r#type).without(writer.reset_fields);
    let written = comparison.written();
    let others = || managed.0.iter().filter(|(manager, _)| **manager != me);
    let conflicts: BTreeMap<Manager, FieldSet> = others()
        .map(|(manager, owned)| (manager.clone(), owned.fields.intersection(&written)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        let mut list = Vec::new();
        for (manager, fields) in conflicts {
            fields.for_each(&mut |path| {
                list.push(Conflict {
                    manager: manager.clone(),
                    path: path.to_vec(),
                })
            });
        }
        return Err(Error::Conflicts(list));
    }
    managed.0.retain(|manager, owned| {
        if *manager != me {
            if let Some(lost) = conflicts.get(manager) {
                owned.fields = owned.fields.difference(lost);
            }
            owned.fields = owned.fields.difference(&comparison.removed);
        } else {
            owned.fields = strip(std::mem::take(&mut owned.fields));
        }
        !owned.fields.is_empty()
    });
    Ok((new, managed))
}

/// Takes out of `merged` what the manager applied last time (`last`) and does not now, unless another claims it or it
/// was not the manager's to take.
fn prune(merged: Value, managed: &Managed, last: &FieldSet, r#type: Type<'_>) -> Value {
    let named = |set: &FieldSet| typed::with_named_fields(set, Some(r#type));
    let without = |value: &Value, set: &FieldSet| remove::remove(value, set, r#type).unwrap_or_else(|| json!({}));
    let merged_set = named(&typed::field_set(&merged, r#type));

    let pruned = without(&merged, &named(last));
    let claimed = managed
        .0
        .values()
        .fold(FieldSet::default(), |all, owned| all.union(&owned.fields));
    let pruned_set = named(&typed::field_set(&pruned, r#type));
    let pruned = without(&merged, &merged_set.difference(&pruned_set.union(&named(&claimed))));

    let pruned_set = named(&typed::field_set(&pruned, r#type));
    without(&merged, &merged_set.difference(&pruned_set).intersection(&named(last)))
}

/// Brings entries in line with a schema in which a list or map became atomic since they were written.
fn reconcile(managed: &mut Managed, r#type: Type<'_>) {
    for owned in managed.0.values_mut() {
        typed::reconcile(&mut owned.fields, r#type);
    }
}

/// Fields that are everybody's and nobody's.
fn strip(fields: FieldSet) -> FieldSet {
    const STRIPPED: [&[&str]; 12] = [
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ];
    fields.difference(&FieldSet::of_fields(&STRIPPED))
}

/// The conflicts that kubectl's own client-side apply does not explain: it may take over what it wrote itself.
fn beyond_last_applied(conflicts: Vec<Conflict>, live: &Value, r#type: Type<'_>, api_version: &str) -> Vec<Conflict> {
    let note = live
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations")?.get(LAST_APPLIED)?.as_str());
    let Some(last) = note.and_then(|note| serde_json::from_str::<Value>(note).ok()) else {
        return conflicts;
    };
    let same_version = last.get("apiVersion").and_then(Value::as_str) == Some(api_version);
    if !same_version || !typed::check(&last, r#type, false).is_empty() || !typed::check(live, r#type, false).is_empty()
    {
        return conflicts;
    }
    let comparison = Comparison::of(&last, live, r#type);
    let own = typed::field_set(&last, r#type)
        .difference(&comparison.written())
        .difference(&comparison.removed);
    conflicts
        .into_iter()
        .filter(|conflict| !own.has(&conflict.path))
        .collect()
}

/// Keeps the client-side annotation, where there is one, in step with what kubectl applies.
fn sync_last_applied(object: &mut Value, config: &Value) {
    let annotations = object
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"));
    let Some(Value::Object(annotations)) = annotations else {
        return;
    };
    if annotations
        .get(LAST_APPLIED)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(noted)) = config
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"))
    {
        noted.shift_remove(LAST_APPLIED);
    }
    config.sort_all_objects();
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(format!("{config}\n")));
    let total: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + value.as_str().unwrap_or_default().len())
        .sum();
    if total > MAX_ANNOTATIONS {
        annotations.shift_remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::patch::merge::tests::any_json;
    use crate::schema::tests::built_in;

    fn writer<'a>(manager: &'a str, reset_fields: &'a FieldSet, second: i64) -> Writer<'a> {
        let now = Timestamp::from_second(second).unwrap();
        Writer {
            manager,
            api_version: "v1",
            subresource: "",
            reset_fields,
            now,
        }
    }

    fn config_map(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
    }

    #[test]
    fn several_conflicts_are_listed_by_manager() {
        let (schema, none) = (built_in("", "v1", "ConfigMap"), FieldSet::default());
        let live = apply(
            None,
            &config_map(json!({"a": "1", "b": "1"})),
            schema,
            &writer("one", &none, 0),
            false,
        )
        .unwrap();
        let mut live = live;
        live["data"]["c"] = json!("1");
        let before = apply(
            None,
            &config_map(json!({"a": "1", "b": "1"})),
            schema,
            &writer("one", &none, 0),
            false,
        )
        .unwrap();
        track_update(Some(&before), &mut live, schema, &writer("two", &none, 0));
        let config = config_map(json!({"a": "2", "b": "2", "c": "2"}));
        let error = apply(Some(&live), &config, schema, &writer("me", &none, 1), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Apply failed with 3 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\nconflicts with \"two\" using v1:\n- .data.c"
        );
        let status = Status::from(error);
        let cause = &status.details.as_ref().unwrap().causes[2];
        assert_eq!((status.code, cause.field.as_str()), (409, ".data.c"));
        assert_eq!(cause.message, "conflict with \"two\" using v1");
        assert!(apply(Some(&live), &config, schema, &writer("me", &none, 1), true).is_ok());
    }

    #[test]
    fn what_changes_nothing_keeps_its_time() {
        let (schema, none) = (built_in("", "v1", "ConfigMap"), FieldSet::default());
        let config = config_map(json!({"a": "1"}));
        let live = apply(None, &config, schema, &writer("one", &none, 0), false).unwrap();
        let again = apply(Some(&live), &config, schema, &writer("one", &none, 60), false).unwrap();
        assert_eq!(again, live);
        let mut same = live.clone();
        track_update(Some(&live), &mut same, schema, &writer("two", &none, 60));
        assert_eq!(same, live);
    }

    #[test]
    fn another_version_is_refused() {
        let (schema, none) = (built_in("", "v1", "ConfigMap"), FieldSet::default());
        let config = json!({"apiVersion": "v2", "kind": "ConfigMap"});
        let error = apply(None, &config, schema, &writer("one", &none, 0), false).unwrap_err();
        assert_eq!(
            error,
            Error::BadRequest(
                "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1".to_owned()
            )
        );
    }

    fn any_thing() -> impl Strategy<Value = Value> {
        (any_json(), prop::option::of(any_json())).prop_map(|(spec, fields)| {
            let mut thing = json!({"apiVersion": "v1", "kind": "ControllerRevision", "metadata": {"name": "x"}, "data": spec});
            if let Some(fields) = fields {
                let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
                thing["metadata"]["managedFields"] = json!([entry]);
            }
            thing
        })
    }

    proptest! {
        #[test]
        fn any_two_objects_are_applied_or_refused(live in any_thing(), config in any_thing(), force in any::<bool>()) {
            let (schema, none) = (built_in("apps", "v1", "ControllerRevision"), FieldSet::default());
            if let Ok(once) = apply(Some(&live), &config, schema, &writer("a", &none, 0), force) {
                let twice = apply(Some(&once), &config, schema, &writer("a", &none, 60), false).unwrap();
                prop_assert_eq!(twice, once);
            }
            let mut after = config;
            track_update(Some(&live), &mut after, schema, &writer("b", &none, 0));
        }

        #[test]
        fn an_applied_field_is_there(a in prop::collection::btree_map("[a-d]", "[xy]", 0..4), b in prop::collection::btree_map("[a-d]", "[xy]", 0..4)) {
            let (schema, none) = (built_in("", "v1", "ConfigMap"), FieldSet::default());
            let live = apply(None, &config_map(json!(a)), schema, &writer("a", &none, 0), false).unwrap();
            let live = apply(Some(&live), &config_map(json!(b)), schema, &writer("b", &none, 1), true).unwrap();
            for (name, value) in &b {
                prop_assert_eq!(&live["data"][name], value);
            }
            // One who applies nothing any more takes away what only he applied.
            let gone = apply(Some(&live), &config_map(json!({})), schema, &writer("b", &none, 2), true).unwrap();
            for (name, _) in gone.get("data").and_then(Value::as_object).into_iter().flatten() {
                prop_assert!(a.contains_key(name) && (!b.contains_key(name) || a.get(name) == b.get(name)));
            }
        }
    }
}
