//! What files a volume consists of.
//!
//! Pure. Source of the rules: `pkg/volume/{configmap,secret,downwardapi,projected}` of kubernetes 1.36.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::super::downward;
use super::super::objects::Kind;
use super::Contents;
use super::token::Wanted;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// Files by path relative to the volume.
pub(crate) type Files = BTreeMap<String, File>;

/// Where a volume's files come from.
pub(crate) struct Source {
    default_mode: u32,
    parts: Vec<Part>,
}

enum Part {
    Object {
        kind: Kind,
        name: String,
        items: Vec<KeyToPath>,
        optional: bool,
    },
    Downward(Vec<DownwardAPIVolumeFile>),
    Token {
        wanted: Wanted,
        path: String,
    },
    Unsupported(&'static str),
}

impl Source {
    /// `None` for volumes that are not made of files we write.
    pub(crate) fn of(volume: &Volume) -> Option<Self> {
        let mode = |mode: Option<i32>| mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644);
        let object = |kind, name: &str, items: &Option<Vec<KeyToPath>>, optional: Option<bool>| Part::Object {
            kind,
            name: name.to_owned(),
            items: items.clone().unwrap_or_default(),
            optional: optional.unwrap_or(false),
        };
        if let Some(source) = &volume.config_map {
            let part = object(Kind::ConfigMap, &source.name, &source.items, source.optional);
            return Some(Self {
                default_mode: mode(source.default_mode),
                parts: vec![part],
            });
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let part = object(Kind::Secret, name, &source.items, source.optional);
            return Some(Self {
                default_mode: mode(source.default_mode),
                parts: vec![part],
            });
        }
        if let Some(source) = &volume.downward_api {
            let part = Part::Downward(source.items.clone().unwrap_or_default());
            return Some(Self {
                default_mode: mode(source.default_mode),
                parts: vec![part],
            });
        }
        let source = volume.projected.as_ref()?;
        let parts = source.sources.iter().flatten().map(|part| match part {
            VolumeProjection {
                config_map: Some(source),
                ..
            } => object(Kind::ConfigMap, &source.name, &source.items, source.optional),
            VolumeProjection {
                secret: Some(source), ..
            } => object(Kind::Secret, &source.name, &source.items, source.optional),
            VolumeProjection {
                downward_api: Some(source),
                ..
            } => Part::Downward(source.items.clone().unwrap_or_default()),
            VolumeProjection {
                service_account_token: Some(source),
                ..
            } => Part::Token {
                wanted: Wanted::of(source),
                path: source.path.clone(),
            },
            VolumeProjection {
                cluster_trust_bundle: Some(_),
                ..
            } => Part::Unsupported("clusterTrustBundle"),
            _ => Part::Unsupported("this kind of projection"),
        });
        Some(Self {
            default_mode: mode(source.default_mode),
            parts: parts.collect(),
        })
    }

    /// The files as they should be now.
    pub(crate) fn files(&self, contents: &Contents<'_>) -> Result<Files, String> {
        let mut files = Files::new();
        for part in &self.parts {
            match part {
                Part::Object {
                    kind,
                    name,
                    items,
                    optional,
                } => {
                    self.object(contents, *kind, name, items, *optional, &mut files)?;
                }
                Part::Downward(items) => self.downward(contents, items, &mut files)?,
                Part::Token { wanted, path } => {
                    let token = contents
                        .tokens
                        .get(wanted)
                        .ok_or("failed to fetch token: it was not asked for")?;
                    self.add(&mut files, path, token.value.clone().into_bytes(), None)?;
                }
                Part::Unsupported(what) => return Err(format!("{what} is not supported by this node")),
            }
        }
        Ok(files)
    }

    fn add(&self, files: &mut Files, path: &str, bytes: Vec<u8>, mode: Option<i32>) -> Result<(), String> {
        let fine = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !fine {
            return Err(format!("invalid path: must be relative and without `..`, got `{path}`"));
        }
        let mode = mode
            .and_then(|mode| u32::try_from(mode).ok())
            .unwrap_or(self.default_mode);
        files.insert(path.to_owned(), File { bytes, mode });
        Ok(())
    }

    fn object(
        &self,
        contents: &Contents<'_>,
        kind: Kind,
        name: &str,
        items: &[KeyToPath],
        optional: bool,
        files: &mut Files,
    ) -> Result<(), String> {
        let Some(payload) = contents.inputs.get(&(kind, name.to_owned())).cloned().flatten() else {
            return if optional {
                Ok(())
            } else {
                Err(format!("{} \"{name}\" not found", kind.word()))
            };
        };
        if items.is_empty() {
            return payload
                .iter()
                .try_for_each(|(key, value)| self.add(files, key, value.clone(), None));
        }
        for item in items {
            match payload.get(&item.key) {
                Some(value) => self.add(files, &item.path, value.clone(), item.mode)?,
                None if optional => {}
                None => {
                    let word = if kind == Kind::Secret { "secret" } else { "config" };
                    return Err(format!("references non-existent {word} key: {}", item.key));
                }
            }
        }
        Ok(())
    }

    fn downward(
        &self,
        contents: &Contents<'_>,
        items: &[DownwardAPIVolumeFile],
        files: &mut Files,
    ) -> Result<(), String> {
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(selector), _) => downward::field(contents.pod, selector, contents.around)?,
                (None, Some(selector)) => downward::resource(contents.pod, None, selector, contents.around)?,
                (None, None) => continue,
            };
            self.add(files, &item.path, value.into_bytes(), item.mode)?;
        }
        Ok(())
    }
}
