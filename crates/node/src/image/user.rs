//! Who an image's `USER` is: names looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Image, ImageError};

/// Numbers for a user specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Groups of which the image's `/etc/group` says that the user is a member.
    pub groups: Vec<u32>,
}

impl Image {
    /// Looks up `uid`, `uid:gid`, `name`, `name:group`; the image's own user when empty.
    pub fn user(&self, specification: &str) -> Result<ImageUser, ImageError> {
        let specification = if specification.is_empty() {
            &self.config.user
        } else {
            specification
        };
        let passwd = read_top(&self.layers, "etc/passwd");
        let group = read_top(&self.layers, "etc/group");
        find(specification, &passwd, &group)
    }
}

/// The file as a container would see it first: of the topmost layer that has it, and only a plain file.
fn read_top(layers: &[PathBuf], path: &str) -> String {
    let top = layers
        .iter()
        .rev()
        .map(|layer| layer.join(path))
        .find(|path| is_plain(path));
    top.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}

fn is_plain(path: &Path) -> bool {
    let linked_parent = path.parent().is_some_and(Path::is_symlink);
    !linked_parent && path.symlink_metadata().is_ok_and(|data| data.is_file())
}

fn find(specification: &str, passwd: &str, group: &str) -> Result<ImageUser, ImageError> {
    let unknown = || ImageError::UnknownUser(specification.to_string());
    let (user, wanted_group) = match specification.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (specification, None),
    };
    let entry = |text: &str, wanted: &str, number: usize| -> Option<Vec<String>> {
        let lines = text
            .lines()
            .map(|line| line.split(':').map(ToString::to_string).collect::<Vec<_>>());
        let mut lines = lines.filter(|fields| fields.len() > number);
        lines.find(|fields| fields[0] == wanted || fields[number] == wanted)
    };
    let user = if user.is_empty() { "0" } else { user };
    let found = entry(passwd, user, 2);
    let (name, uid, own_group) = match (&found, user.parse::<u32>()) {
        (Some(fields), _) => {
            let number = |field: usize| fields.get(field).and_then(|n| n.parse().ok());
            (
                Some(fields[0].clone()),
                number(2).ok_or_else(unknown)?,
                number(3).unwrap_or(0),
            )
        }
        (None, Ok(uid)) => (None, uid, 0),
        (None, Err(_)) => return Err(unknown()),
    };
    let gid = match wanted_group {
        None => own_group,
        Some(wanted) => match (entry(group, wanted, 2), wanted.parse()) {
            (Some(fields), _) => fields[2].parse().map_err(|_| unknown())?,
            (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(unknown()),
        },
    };
    let mut groups: Vec<u32> = vec![];
    if let Some(name) = name {
        for fields in group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| fields.len() > 3)
        {
            if fields[3].split(',').any(|member| member == name) {
                groups.extend(fields[2].parse::<u32>().ok().filter(|other| *other != gid));
            }
        }
    }
    Ok(ImageUser { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\n";

    #[test]
    fn names_and_numbers_are_found() {
        let user = |uid, gid, groups: &[u32]| ImageUser {
            uid,
            gid,
            groups: groups.to_vec(),
        };
        for (given, wanted) in [
            ("", user(0, 0, &[])),
            ("web", user(33, 34, &[50])),
            ("33", user(33, 34, &[50])),
            ("web:logs", user(33, 50, &[])),
            ("1000", user(1000, 0, &[])),
            ("1000:1001", user(1000, 1001, &[])),
        ] {
            assert_eq!(find(given, PASSWD, GROUP).unwrap(), wanted, "{given:?}");
        }
        assert!(find("nobody", PASSWD, GROUP).is_err() && find("web:none", PASSWD, GROUP).is_err());
    }
}
