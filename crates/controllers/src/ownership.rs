//! Who controls what: owner references, and the claiming of objects by a controller's selector.
//!
//! The decision is [`decide`], pure; [`Claim::of`] carries it out. Must not know which kinds own which.
//! (k/k `pkg/controller/controller_ref_manager.go`, v1.36.)

use std::fmt::Debug;
use std::sync::Arc;

use apimachinery::labels::Selector;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{self, Doing, Error, Result};
use crate::key::Key;
use crate::selector;

/// The owner that manages the object, if any.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_deref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// True if `meta`'s object is managed by the one with `uid`.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// The name of the controlling owner if it is a `kind` of group `group`.
pub(crate) fn controller_named<'a>(meta: &'a ObjectMeta, group: &str, kind: &str) -> Option<&'a OwnerReference> {
    let owner = controller_of(meta)?;
    let in_group = owner.api_version.split_once('/').map_or("", |(group, _)| group) == group;
    (in_group && owner.kind == kind).then_some(owner)
}

/// A reference that makes `owner` the controller: `controller` and `blockOwnerDeletion` are true.
pub(crate) fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What to do with an object that a controller looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is ours and matches.
    Keep,
    /// It matches and nobody controls it.
    Adopt,
    /// It is ours and no longer matches.
    Release,
    /// It is none of our business.
    Ignore,
}

/// Pure: whether the controller `uid` with `selector` keeps, adopts, releases or ignores `object`.
pub(crate) fn decide(uid: &str, owner_deleting: bool, selector: &Selector, object: &ObjectMeta) -> Decision {
    let matches = selector::matches(selector, object.labels.as_ref());
    match controller_of(object) {
        Some(owner) if owner.uid != uid => Decision::Ignore,
        Some(_) if matches => Decision::Keep,
        Some(_) if owner_deleting => Decision::Ignore,
        Some(_) => Decision::Release,
        // An orphan that is on its way out is not worth adopting.
        None if owner_deleting || !matches || object.deletion_timestamp.is_some() => Decision::Ignore,
        None => Decision::Adopt,
    }
}

/// Claims objects of kind `K` for `owner`.
pub(crate) struct Claim<'a, O> {
    pub(crate) owner: &'a O,
    pub(crate) selector: &'a Selector,
    pub(crate) client: &'a Client,
}

impl<O> Claim<'_, O>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    /// The objects among `candidates` that the owner controls, after adopting orphans and releasing strangers.
    pub(crate) async fn of<K>(&self, candidates: Vec<Arc<K>>) -> Result<Vec<Arc<K>>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let meta = self.owner.meta();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let mut may_adopt = false;
        let mut claimed = Vec::with_capacity(candidates.len());
        for object in candidates {
            match decide(uid, meta.deletion_timestamp.is_some(), self.selector, object.meta()) {
                Decision::Keep => claimed.push(object),
                Decision::Ignore => {}
                Decision::Adopt => {
                    if !may_adopt {
                        self.check_owner_lives().await?;
                        may_adopt = true;
                    }
                    if self.adopt(&*object).await? {
                        claimed.push(object);
                    }
                }
                Decision::Release => self.release(&*object).await?,
            }
        }
        Ok(claimed)
    }

    /// Looks at the owner itself, not at the cache: what is being deleted must not adopt what its deletion orphaned.
    async fn check_owner_lives(&self) -> Result<()> {
        let key = Key::of(self.owner);
        let api: Api<O> = Api::namespaced(self.client.clone(), &key.namespace);
        let fresh = api
            .get(&key.name)
            .await
            .doing(|| format!("looking at `{key}` before it adopts"))?;
        if fresh.meta().uid != self.owner.meta().uid {
            return Err(Error::new(format!("`{key}` was deleted and created again")));
        }
        match fresh.meta().deletion_timestamp {
            Some(_) => Err(Error::new(format!("`{key}` is being deleted and adopts nothing"))),
            None => Ok(()),
        }
    }

    async fn adopt<K>(&self, object: &K) -> Result<bool>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let others = object.meta().owner_references.clone().unwrap_or_default();
        self.set_owners(object, others.into_iter().chain([controller_ref(self.owner)]).collect())
            .await
    }

    async fn release<K>(&self, object: &K) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let mut others = object.meta().owner_references.clone().unwrap_or_default();
        others.retain(|owner| Some(&owner.uid) != self.owner.meta().uid.as_ref());
        self.set_owners(object, others).await.map(drop)
    }

    /// False if the object is gone. A merge patch of the whole list, which the resource version makes safe: another
    /// write in between is a conflict, and the decision is made again.
    async fn set_owners<K>(&self, object: &K, owners: Vec<OwnerReference>) -> Result<bool>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let meta = object.meta();
        let patch = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
        let key = Key::of(object);
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        match api
            .patch_metadata(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error::is_not_found(&error) => Ok(false),
            failed => failed
                .map(|_| true)
                .doing(|| format!("claiming {} `{key}`", K::kind(&()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn object(label: &str, owner: Option<&str>, deleting: bool) -> ObjectMeta {
        ObjectMeta {
            labels: Some([("app".to_owned(), label.to_owned())].into()),
            owner_references: owner.map(|uid| {
                vec![OwnerReference {
                    uid: uid.to_owned(),
                    controller: Some(true),
                    ..Default::default()
                }]
            }),
            deletion_timestamp: deleting.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..Default::default()
        }
    }

    #[test]
    fn a_controller_keeps_its_own_adopts_orphans_and_releases_strangers() {
        let selector = Selector::parse("app=web").unwrap();
        let decide = |object, deleting| decide("me", deleting, &selector, &object);
        assert_eq!(decide(object("web", Some("me"), false), false), Decision::Keep);
        assert_eq!(decide(object("web", Some("me"), true), true), Decision::Keep);
        assert_eq!(decide(object("web", Some("you"), false), false), Decision::Ignore);
        assert_eq!(decide(object("web", None, false), false), Decision::Adopt);
        assert_eq!(decide(object("web", None, true), false), Decision::Ignore);
        assert_eq!(decide(object("web", None, false), true), Decision::Ignore);
        assert_eq!(decide(object("other", None, false), false), Decision::Ignore);
        assert_eq!(decide(object("other", Some("me"), false), false), Decision::Release);
        assert_eq!(decide(object("other", Some("me"), false), true), Decision::Ignore);
    }

    #[test]
    fn a_controller_of_another_group_is_not_taken_for_ours() {
        let mut meta = object("web", Some("me"), false);
        let owner = &mut meta.owner_references.as_mut().unwrap()[0];
        (owner.api_version, owner.kind) = ("apps/v1".into(), "ReplicaSet".into());
        assert!(controller_named(&meta, "apps", "ReplicaSet").is_some());
        assert!(controller_named(&meta, "extensions", "ReplicaSet").is_none());
        assert!(controller_named(&meta, "apps", "StatefulSet").is_none());
    }
}
