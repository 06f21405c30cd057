//! Sets of Linux capabilities: containerd's default, what a pod adds and drops, and how a process is cut down to them.

use std::io;

use super::Error;

/// A set of capabilities, bit n for capability number n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

/// In the order of `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// containerd `oci.defaultUnixCaps`.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

fn bit(name: &str) -> Option<u64> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

impl Capabilities {
    /// Every one.
    pub(super) const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// What a container gets that asks for nothing.
    pub(super) fn defaults() -> Self {
        Self(DEFAULT.iter().filter_map(|name| bit(name)).sum())
    }

    /// The default with `drop` taken away and `add` added, by the CRI's rules: `ALL` first, then names; a name that
    /// is both added and dropped is dropped, unless it was `ALL` that dropped it.
    pub(super) fn of(add: &[String], drop: &[String]) -> Result<Self, Error> {
        let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
        let named = |names: &[String]| {
            names
                .iter()
                .filter(|name| !name.eq_ignore_ascii_case("ALL"))
                .try_fold(0, |set, name| {
                    let known = bit(&name.to_ascii_uppercase());
                    known
                        .map(|bit| set | bit)
                        .ok_or_else(|| Error::Refused(format!("unknown capability to add or drop `{name}`")))
                })
        };
        let mut set = Self::defaults().0;
        if all(add) {
            set = Self::ALL.0;
        }
        if all(drop) {
            set = 0;
        }
        Ok(Self((set | named(add)?) & !named(drop)?))
    }

    /// `CAP_SYS_ADMIN` and the like.
    pub(super) fn has(&self, name: &str) -> bool {
        bit(name).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Takes everything else out of the calling thread's bounding set, so that no later exec brings it back.
    pub(super) fn bound(self) -> io::Result<()> {
        for number in 0..64 {
            if self.0 & (1 << number) != 0 {
                continue;
            }
            match prctl(libc::PR_CAPBSET_DROP, number) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break, // past the last one
                result => result?,
            }
        }
        Ok(())
    }

    /// Keeps only this set (and of it only what the thread has). An ordinary user keeps nothing, as exec would have
    /// it anyway.
    #[expect(unsafe_code, reason = "capset has no wrapper")]
    pub(super) fn keep(self, root: bool) -> io::Result<()> {
        #[repr(C)]
        struct Header {
            version: u32,
            pid: i32,
        }
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        struct Data {
            effective: u32,
            permitted: u32,
            inheritable: u32,
        }
        const VERSION_3: u32 = 0x2008_0522;
        prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned().into(),
        )
        .ok(); // Linux < 4.3: none
        let mut header = Header {
            version: VERSION_3,
            pid: 0,
        };
        let mut data = [Data::default(); 2];
        // SAFETY: version 3 reads and writes exactly two `Data`.
        if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let wanted = if root { self.0 } else { 0 };
        for (half, data) in data.iter_mut().enumerate() {
            let wanted = (wanted >> (32 * half)) as u32;
            let kept = wanted & data.permitted;
            *data = Data {
                effective: kept,
                permitted: kept,
                inheritable: 0,
            };
        }
        // SAFETY: as above.
        if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "prctl options without a wrapper")]
fn prctl(option: i32, argument: u64) -> io::Result<()> {
    // SAFETY: the options used here take numbers only.
    if unsafe { libc::prctl(option, argument, 0, 0, 0) } != 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Capabilities {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Capabilities::of(&owned(add), &owned(drop)).unwrap()
    }

    #[test]
    fn dropping_all_leaves_what_is_added_by_name() {
        assert_eq!(of(&["NET_BIND_SERVICE"], &["ALL"]), Capabilities(1 << 10));
        assert_eq!(of(&[], &["all"]), Capabilities(0));
        assert!(!of(&["ALL"], &["CAP_SYS_ADMIN"]).has("CAP_SYS_ADMIN"));
        assert!(of(&["ALL"], &[]).has("CAP_BPF"));
        assert!(!of(&[], &["NET_RAW"]).has("CAP_NET_RAW") && of(&[], &["NET_RAW"]).has("CAP_KILL"));
    }

    #[test]
    fn the_default_is_containerd_s() {
        assert_eq!(Capabilities::defaults().0, 0xa804_25fb); // what `CapBnd` shows in such a container
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(matches!(
            Capabilities::of(&["CAP_FLY".into()], &[]),
            Err(Error::Refused(_))
        ));
    }
}
