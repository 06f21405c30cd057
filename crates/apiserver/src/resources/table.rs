//! `Table`: every resource served, found by path, listed in the order of discovery.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use apimachinery::gvk::{GroupKind, GroupResource};
use serde::Deserialize;

use super::archive;
use super::conversion;
use super::resource::{Resource, Subresource, Verb, Verbs, api_version};

/// An API group and its versions, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Empty for the core group.
    pub name: String,
    /// Preferred first.
    pub versions: Vec<String>,
}

/// Every resource served.
#[derive(Clone, Debug, Default)]
pub struct Table {
    groups: Vec<Group>,
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), usize>,
}

impl Table {
    /// The built-in resources: those of the embedded discovery answers that are GA (`v1`, `v2`).
    pub fn built_in() -> io::Result<Self> {
        let mut order: Vec<String> = Vec::new();
        let mut lists: HashMap<String, ResourceList> = HashMap::new();
        archive::each(|name, reader| {
            let Some(file) = name
                .strip_prefix("discovery/")
                .and_then(|file| file.strip_suffix(".json"))
            else {
                return Ok(!name.starts_with("openapi-v3/"));
            };
            if file == "apis" {
                let groups: GroupList = serde_json::from_slice(&read(reader)?)?;
                for group in groups.groups {
                    order.extend(group.versions.into_iter().map(|version| version.group_version));
                }
            } else if file.starts_with("api__") || file.matches("__").count() == 2 {
                let list: ResourceList = serde_json::from_slice(&read(reader)?)?;
                lists.insert(list.group_version.clone(), list);
            }
            Ok(true)
        })?;
        let mut table = Self::default();
        for group_version in std::iter::once("v1").chain(order.iter().map(String::as_str)) {
            let (group, version) = group_version.rsplit_once('/').unwrap_or(("", group_version));
            if let Some(list) = lists.remove(group_version).filter(|_| is_ga(version)) {
                table.add_version(group, version, list.into_resources(group, version));
            }
        }
        Ok(table)
    }

    /// Adds resources to a version of a group; a new version comes behind those that are there.
    pub fn add_version(&mut self, group: &str, version: &str, resources: Vec<Resource>) {
        match self.groups.iter_mut().find(|known| known.name == group) {
            Some(known) if known.versions.iter().any(|there| there == version) => {}
            Some(known) => known.versions.push(version.to_owned()),
            None => self.groups.push(Group {
                name: group.to_owned(),
                versions: vec![version.to_owned()],
            }),
        }
        for resource in resources {
            let path = (group.to_owned(), version.to_owned(), resource.plural.clone());
            self.by_path.insert(path, self.resources.len());
            self.resources.push(Arc::new(resource));
        }
    }

    /// The core group first, then the real server's order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Whether the group is served in that version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.group(group)
            .is_some_and(|group| group.versions.iter().any(|known| known == version))
    }

    /// All of them, in the order of discovery.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// The resources of one version.
    pub fn version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources
            .iter()
            .filter(move |resource| resource.group == group && resource.version == version)
    }

    /// The resource of a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_path.get(&path).map(|index| &self.resources[*index])
    }

    /// The resource in the version in which its group prefers it.
    pub fn preferred(&self, resource: &GroupResource) -> Option<&Arc<Resource>> {
        let group = self.group(&resource.group)?;
        group
            .versions
            .iter()
            .find_map(|version| self.find(&group.name, version, &resource.resource))
    }

    /// The resource of a kind, in the version in which its group prefers it.
    pub fn of_kind(&self, kind: &GroupKind) -> Option<&Arc<Resource>> {
        self.resources
            .iter()
            .find(|resource| resource.group == kind.group && resource.kind == kind.kind)
    }
}

/// `v1`, `v2`, … but not `v1beta1`.
fn is_ga(version: &str) -> bool {
    version
        .strip_prefix('v')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn read(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Deserialize)]
struct GroupList {
    groups: Vec<GroupEntry>,
}

#[derive(Deserialize)]
struct GroupEntry {
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

/// A legacy `APIResourceList`: it holds everything that the aggregated form does, and the hashes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList {
    group_version: String,
    resources: Vec<ResourceEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ResourceEntry {
    name: String,
    singular_name: String,
    namespaced: bool,
    group: String,
    version: String,
    kind: String,
    verbs: Vec<String>,
    short_names: Vec<String>,
    categories: Vec<String>,
    storage_version_hash: String,
}

impl ResourceList {
    fn into_resources(self, group: &str, version: &str) -> Vec<Resource> {
        let mut resources: Vec<Resource> = Vec::new();
        for entry in self.resources {
            let verbs: Verbs = entry.verbs.iter().filter_map(|verb| Verb::parse(verb)).collect();
            if let Some((plural, name)) = entry.name.split_once('/') {
                let subresource = Subresource {
                    name: name.to_owned(),
                    group: entry.group,
                    version: entry.version,
                    kind: entry.kind,
                    verbs,
                };
                if let Some(resource) = resources.iter_mut().find(|resource| resource.plural == plural) {
                    resource.subresources.push(subresource);
                }
                continue;
            }
            let conversion = conversion::of(group, version, &entry.name);
            let (stored_as, stored_head) = match conversion {
                Some(conversion) => (
                    GroupResource::new(conversion.stored.0, conversion.stored.2),
                    stored_head(conversion.stored.0, conversion.stored.1, &entry.kind),
                ),
                None => (
                    GroupResource::new(group, &entry.name),
                    stored_head(group, version, &entry.kind),
                ),
            };
            resources.push(Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: entry.name,
                singular: entry.singular_name,
                kind: entry.kind,
                namespaced: entry.namespaced,
                verbs,
                short_names: entry.short_names,
                categories: entry.categories,
                subresources: Vec::new(),
                storage_version_hash: entry.storage_version_hash,
                conversion,
                stored_as,
                stored_head,
                custom: None,
            });
        }
        resources
    }
}

pub(crate) fn stored_head(group: &str, version: &str, kind: &str) -> String {
    format!(r#"{{"kind":"{kind}","apiVersion":"{}","#, api_version(group, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_ga_versions_only_and_the_core_group_first() {
        let table = Table::built_in().unwrap();
        assert_eq!(table.groups()[0].name, "");
        assert_eq!(table.group("autoscaling").unwrap().versions, ["v2", "v1"]);
        assert!(table.resources().all(|resource| is_ga(&resource.version)));
        assert!(table.group("internal.apiserver.k8s.io").is_none());
    }

    #[test]
    fn subresources_hang_on_their_resource() {
        let table = Table::built_in().unwrap();
        let pods = table.find("", "v1", "pods").unwrap();
        assert_eq!(pods.short_names, ["po"]);
        let eviction = pods.subresource("eviction").unwrap();
        assert_eq!(
            (eviction.group.as_str(), eviction.kind.as_str()),
            ("policy", "Eviction")
        );
        assert!(eviction.verbs.contains(Verb::Create) && !eviction.verbs.contains(Verb::Get));
        assert!(table.find("apps", "v1", "deployments").unwrap().has_status());
        assert!(table.find("", "v1", "pods/log").is_none());
    }
}
