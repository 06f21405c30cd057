//! Who a container runs as: the pod's words, else the image's.
//!
//! Source of the rules: `pkg/kubelet/kuberuntime/security_context.go` of kubernetes 1.36 and containerd's `oci.WithUser`.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::image::Image;
use crate::runtime::User;

/// Resolves the user, or says why the container may not run (`CreateContainerConfigError`).
pub(crate) fn user(pod: &Pod, container: &Container, image: &Image) -> Result<User, String> {
    let pod_context = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone())
        .unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as = own.run_as_user.or(pod_context.run_as_user);
    if own.run_as_non_root.or(pod_context.run_as_non_root) == Some(true) {
        let image_user = image.config.user.split(':').next().unwrap_or_default();
        non_root(pod, container, run_as, image_user)?;
    }
    // The image's group goes with the image's user only.
    let specification = run_as
        .map(|uid| id(uid, "runAsUser"))
        .transpose()?
        .map(|uid| uid.to_string());
    let known = image
        .user(&specification.unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let gid = match own.run_as_group.or(pod_context.run_as_group) {
        Some(gid) => id(gid, "runAsGroup")?,
        None => known.gid,
    };
    let mut supplementary = match pod_context.supplemental_groups_policy.as_deref() {
        Some("Strict") => vec![],
        _ => known.groups,
    };
    for group in pod_context
        .supplemental_groups
        .iter()
        .flatten()
        .chain(&pod_context.fs_group)
    {
        supplementary.push(id(*group, "supplementalGroups")?);
    }
    supplementary.retain(|group| *group != gid);
    supplementary.sort_unstable();
    supplementary.dedup();
    Ok(User {
        uid: known.uid,
        gid,
        supplementary_groups: supplementary,
    })
}

fn id(number: i64, field: &str) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("{field}: expected 0 to 4294967295, got {number}"))
}

fn non_root(pod: &Pod, container: &Container, run_as: Option<i64>, image_user: &str) -> Result<(), String> {
    let meta = &pod.metadata;
    let place = format!(
        "(pod: \"{}_{}({})\", container: {})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
        container.name
    );
    match run_as {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => Ok(()),
        None if image_user.is_empty() || image_user.parse() == Ok(0u32) => {
            Err(format!("container has runAsNonRoot and image will run as root {place}"))
        }
        None if image_user.parse::<u32>().is_err() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {place}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;
    use crate::image::ImageConfig;

    fn resolve(pod_context: Value, own: Value, image_user: &str) -> Result<User, String> {
        let layer = tempfile::tempdir().unwrap();
        fs::create_dir(layer.path().join("etc")).unwrap();
        fs::write(
            layer.path().join("etc/passwd"),
            "root:x:0:0::/:/\napp:x:1000:1001::/:/\n",
        )
        .unwrap();
        fs::write(
            layer.path().join("etc/group"),
            "root:x:0:\napp:x:1001:\nextra:x:50:app,other\n",
        )
        .unwrap();
        let image = Image {
            id: String::new(),
            layers: vec![layer.path().into()],
            config: ImageConfig {
                user: image_user.into(),
                ..Default::default()
            },
            size: 0,
            references: vec![],
            digests: vec![],
        };
        let container: Container = serde_json::from_value(json!({"name": "c", "securityContext": own})).unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"containers": [container], "securityContext": pod_context}});
        user(&serde_json::from_value(pod).unwrap(), &container, &image)
    }

    #[test]
    fn the_pods_word_comes_before_the_images() {
        let ids = |user: User| (user.uid, user.gid, user.supplementary_groups);
        assert_eq!(ids(resolve(json!({}), json!({}), "").unwrap()), (0, 0, vec![]));
        assert_eq!(
            ids(resolve(json!({}), json!({}), "app").unwrap()),
            (1000, 1001, vec![50])
        );
        assert_eq!(ids(resolve(json!({}), json!({}), "4711").unwrap()), (4711, 0, vec![]));
        let context = json!({"runAsUser": 7, "runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [10]});
        assert_eq!(
            ids(resolve(context.clone(), json!({}), "app").unwrap()),
            (7, 8, vec![9, 10])
        );
        assert_eq!(resolve(context, json!({"runAsUser": 70}), "app").unwrap().uid, 70);
        assert!(resolve(json!({}), json!({}), "nobody").is_err());
    }

    #[test]
    fn run_as_non_root_is_checked_before_anything_runs() {
        let non_root = json!({"runAsNonRoot": true});
        let error = |user: &str| resolve(non_root.clone(), json!({}), user).unwrap_err();
        assert_eq!(
            error(""),
            "container has runAsNonRoot and image will run as root (pod: \"p_d(u)\", container: c)"
        );
        assert!(error("app").contains("non-numeric user (app), cannot verify"));
        assert!(
            resolve(non_root.clone(), json!({"runAsUser": 0}), "")
                .unwrap_err()
                .contains("breaks non-root policy")
        );
        assert!(resolve(non_root, json!({"runAsUser": 1000}), "").is_ok());
    }
}
