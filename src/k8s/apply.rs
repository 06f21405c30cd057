//! Server-side apply of a lab's objects: what is sent, whether it has to be sent, and whose the object is.

use std::collections::BTreeMap;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::Status;
use serde_json::{Value, json};

use super::diff::differences;
use super::resource::{Kind, ObjectName, Resources, to_value};
use super::{Error, FIELD_MANAGER};
use crate::lab::LABEL;
use crate::scenario::manifest;

/// What a manifest's document becomes for a lab: its label on the object and on the pods it makes, and `NAME:lab`
/// images by their content. Pure.
pub fn prepare(document: &Value, lab: &str, images: &BTreeMap<String, String>) -> Value {
    let mut prepared = document.clone();
    label(&mut prepared, lab);
    for template in ["/spec/template", "/spec/jobTemplate/spec/template"] {
        // A label on the pods: whoever looks for what a lab left behind finds them too.
        if let Some(template) = prepared
            .pointer_mut(template)
            .filter(|template| template.get("spec").is_some())
        {
            label(template, lab);
        }
    }
    manifest::for_each_image(&mut prepared, &mut |image| {
        if let Some(built) = image
            .strip_suffix(&format!(":{}", manifest::LAB_TAG))
            .and_then(|name| images.get(name))
        {
            built.clone_into(image);
        }
    });
    prepared
}

fn label(object: &mut Value, lab: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if let Some(labels) = metadata
        .as_object_mut()
        .map(|metadata| metadata.entry("labels").or_insert_with(|| json!({})))
    {
        labels[LABEL] = lab.into();
    }
}

/// The objects whose replicas an HPA among these documents looks after: kind and name.
pub fn scaled_by_autoscalers<'d>(documents: impl IntoIterator<Item = &'d Value>) -> Vec<(String, String)> {
    let scaled = documents
        .into_iter()
        .filter(|document| manifest::text(document, "/kind") == "HorizontalPodAutoscaler");
    scaled
        .map(|hpa| {
            let text = |pointer| manifest::text(hpa, pointer).to_owned();
            (text("/spec/scaleTargetRef/kind"), text("/spec/scaleTargetRef/name"))
        })
        .collect()
}

/// An object as it is, and what an apply would change.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It is not there.
    Missing,
    /// It is there, and these fields differ.
    Present {
        /// The object.
        live: Box<Value>,
        /// The differing fields, one a line.
        differences: Vec<String>,
    },
}

/// Applies to one cluster, for one lab.
#[derive(Clone, Copy, Debug)]
pub struct Applier<'a> {
    /// The cluster's kinds.
    pub resources: &'a Resources,
    /// The lab's id.
    pub lab: &'a str,
    /// The lab's namespace.
    pub namespace: &'a str,
    /// What HPAs of the lab scale: kind and name.
    pub scaled: &'a [(String, String)],
}

impl Applier<'_> {
    /// Looks at the live object of a prepared document.
    pub async fn observe(&self, document: &Value) -> Result<Found, Error> {
        let (name, _) = self.resources.locate(document, self.namespace).await?;
        let Some(live) = self.resources.get(&name).await? else {
            return Ok(Found::Missing);
        };
        self.ours(&name, &live)?;
        let want = self.without_scaled_replicas(document.clone(), Some(&live));
        let differences = differences(&live, &want, FIELD_MANAGER);
        Ok(Found::Present {
            live: Box::new(live),
            differences,
        })
    }

    /// Applies a prepared document. Fails where the object is not this lab's.
    pub async fn apply(&self, document: &Value) -> Result<Value, Error> {
        let (name, kind) = self.resources.locate(document, self.namespace).await?;
        let live = self.resources.get(&name).await?;
        if let Some(live) = &live {
            self.ours(&name, live)?;
        }
        let want = self.without_scaled_replicas(document.clone(), live.as_ref());
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.resources.api(&kind, name.namespace.as_deref());
        match api.patch(&name.name, &params, &Patch::Apply(&want)).await {
            Ok(applied) => Ok(to_value(&applied)),
            Err(kube::Error::Api(status)) if status.code == 409 && !conflicts(&status).is_empty() => {
                Err(Error::Conflict {
                    object: name,
                    conflicts: conflicts(&status),
                })
            }
            Err(error) => Err(Error::of(format!("applying {name}"), error)),
        }
    }

    /// Deletes an object if it is there and this lab's; whether there was something to delete.
    pub async fn delete(&self, name: &ObjectName) -> Result<bool, Error> {
        let Some(live) = self.resources.get(name).await? else {
            return Ok(false);
        };
        if owner(&live) != Some(self.lab) {
            return Ok(false);
        }
        let kind = self.resources.find(&name.api_version, &name.kind).await?;
        let uid = manifest::text(&live, "/metadata/uid").to_owned();
        // Between the look and the deletion somebody may have put another object in its place.
        let preconditions = Some(Preconditions {
            uid: Some(uid),
            resource_version: None,
        });
        let params = DeleteParams {
            preconditions,
            ..DeleteParams::background()
        };
        match self
            .resources
            .api(&kind, name.namespace.as_deref())
            .delete(&name.name, &params)
            .await
        {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(Error::of(format!("deleting {name}"), error)),
        }
    }

    fn ours(&self, name: &ObjectName, live: &Value) -> Result<(), Error> {
        match owner(live) {
            Some(lab) if lab == self.lab => Ok(()),
            other => Err(Error::Foreign {
                object: name.clone(),
                owner: other.map(str::to_owned),
            }),
        }
    }

    /// Leaves out `spec.replicas` of an object that is there and that an HPA of the lab scales: it would undo its work.
    fn without_scaled_replicas(&self, mut document: Value, live: Option<&Value>) -> Value {
        let (kind, name) = (
            manifest::text(&document, "/kind"),
            manifest::text(&document, "/metadata/name"),
        );
        let scaled = self
            .scaled
            .iter()
            .any(|(scaled_kind, scaled_name)| scaled_kind == kind && scaled_name == name);
        // Once another manager scaled it, giving the field up does not change its value.
        let handed_over = live.is_some_and(|live| owned_by_another(live, "f:replicas"));
        if scaled
            && live.is_some()
            && handed_over
            && let Some(spec) = document.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.remove("replicas");
        } else if scaled && let Some(present) = live.and_then(|live| live.pointer("/spec/replicas")).cloned() {
            document["spec"]["replicas"] = present;
        }
        document
    }
}

/// Whether somebody else than k8slab manages a field of the spec.
fn owned_by_another(live: &Value, field: &str) -> bool {
    let entries = live
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    entries
        .iter()
        .any(|entry| entry["manager"] != FIELD_MANAGER && entry["fieldsV1"]["f:spec"].get(field).is_some())
}

/// The lab on an object's label.
pub fn owner(live: &Value) -> Option<&str> {
    live.get("metadata")?.get("labels")?.get(LABEL)?.as_str()
}

/// Who owns which field, from the causes of a server-side apply's 409.
fn conflicts(status: &Status) -> Vec<String> {
    let causes = status
        .details
        .as_ref()
        .map(|details| details.causes.as_slice())
        .unwrap_or_default();
    let causes = causes.iter().filter(|cause| cause.reason == "FieldManagerConflict");
    causes
        .map(|cause| format!("{} ({})", cause.field, cause.message))
        .collect()
}

/// The Kind and the identity under which a Namespace is found.
pub fn namespace_name(namespace: &str) -> ObjectName {
    ObjectName {
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        namespace: None,
        name: namespace.to_owned(),
    }
}

/// Deletes through the kind's API without a look, for what was just read.
pub async fn delete_found(resources: &Resources, kind: &Kind, name: &ObjectName) -> Result<(), Error> {
    match resources
        .api(kind, name.namespace.as_deref())
        .delete(&name.name, &DeleteParams::background())
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::of(format!("deleting {name}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_gets_the_labs_label_and_its_images_by_content() {
        let document = json!({"kind": "Deployment", "metadata": {"name": "a", "labels": {"app": "a"}}, "spec": {"template": {
            "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"image": "a:lab"}, {"image": "b:lab"}, {"image": "a:1"}]}}}});
        let images = BTreeMap::from([("a".to_owned(), "a:c-12345678".to_owned())]);
        let prepared = prepare(&document, "shop-1", &images);
        assert_eq!(prepared["metadata"]["labels"], json!({"app": "a", LABEL: "shop-1"}));
        assert_eq!(prepared["spec"]["template"]["metadata"]["labels"][LABEL], "shop-1");
        let containers = &prepared["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            *containers,
            json!([{"image": "a:c-12345678"}, {"image": "b:lab"}, {"image": "a:1"}])
        );
        assert_eq!(
            prepare(&json!({"kind": "ConfigMap"}), "x", &images)["metadata"]["labels"][LABEL],
            "x"
        );
    }
}
