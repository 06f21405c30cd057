//! The default seccomp profile: what a container may ask of the kernel.
//!
//! An allow-list with containerd's content (`contrib/seccomp/seccomp_default.go`, containerd 2.1; the same as Docker's),
//! compiled here because a static binary has no libseccomp. Differences: one architecture a process (a 32-bit binary
//! in a 64-bit container is killed, where containerd would filter its calls too).

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::capabilities::Capabilities;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs to install, in this order, for a process that keeps `capabilities`.
///
/// Two of them, because a filter has one answer: what is not allowed is `EPERM`, but `clone3` is `ENOSYS`, on which
/// every libc falls back to `clone`, whose flags a filter can read.
pub(super) fn default_profile(capabilities: &Capabilities) -> io::Result<Vec<BpfProgram>> {
    let eperm = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let mut programs = vec![compile(allowed(capabilities)?, eperm, SeccompAction::Allow)?];
    if !capabilities.has("CAP_SYS_ADMIN") {
        let enosys = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let rules = Rules::from([(libc::SYS_clone3, vec![])]);
        programs.push(compile(rules, SeccompAction::Allow, enosys)?);
    }
    Ok(programs)
}

fn compile(rules: Rules, otherwise: SeccompAction, then: SeccompAction) -> io::Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, then, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

fn allowed(capabilities: &Capabilities) -> io::Result<Rules> {
    let mut rules: Rules = ALWAYS.iter().chain(NEWER).chain(ARCH).map(|nr| (*nr, vec![])).collect();
    for (capability, calls) in WITH_CAPABILITY {
        if capabilities.has(capability) {
            rules.extend(calls.iter().map(|nr| (*nr, vec![])));
        }
    }
    // No address family that leads around the network namespace: vsock reaches the hypervisor.
    rules.insert(
        libc::SYS_socket,
        vec![rule(0, SeccompCmpOp::Ne, u64::from(libc::AF_VSOCK.cast_unsigned()))?],
    );
    let personalities = [0u64, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let personalities = personalities.iter().map(|value| rule(0, SeccompCmpOp::Eq, *value));
    rules.insert(libc::SYS_personality, personalities.collect::<io::Result<_>>()?);
    if !capabilities.has("CAP_SYS_ADMIN") {
        // No new namespaces: CLONE_NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | NEWCGROUP.
        rules.insert(libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(0x7e02_0000), 0)?]);
        rules.insert(libc::SYS_clone3, vec![]); // for the second program to refuse
    }
    Ok(rules)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value);
    SeccompRule::new(vec![condition.map_err(io::Error::other)?]).map_err(io::Error::other)
}

macro_rules! numbers {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

const ALWAYS: &[i64] = numbers! {
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range
    SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve
    SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr
    SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_getcpu
    SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername
    SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrlimit
    SYS_get_robust_list SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid
    SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_ioctl SYS_io_destroy
    SYS_io_getevents SYS_ioprio_get SYS_ioprio_set SYS_io_setup SYS_io_submit SYS_kill
    SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen
    SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier
    SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap
    SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink
    SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap
    SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal
    SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2
    SYS_prlimit64 SYS_process_mrelease SYS_pselect6 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat
    SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask
    SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo
    SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam
    SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile
    SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid
    SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_set_robust_list SYS_setsid
    SYS_setsockopt SYS_set_tid_address SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown
    SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync
    SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill
    SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
    // ptrace and its kin: safe since Linux 4.8, allowed there.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev
};

/// Calls that the C library's headers do not know. Numbers from 424 on are the same everywhere.
const NEWER: &[i64] = &[
    if cfg!(target_arch = "x86_64") { 333 } else { 292 }, // io_pgetevents
    449,                                                  // futex_waitv
    451,                                                  // cachestat
    452,                                                  // fchmodat2
    453,                                                  // map_shadow_stack
    454,                                                  // futex_wake
    455,                                                  // futex_wait
    456,                                                  // futex_requeue
    459,                                                  // lsm_get_self_attr
    461,                                                  // lsm_list_modules
    462,                                                  // mseal
    463,                                                  // setxattrat
    464,                                                  // getxattrat
    465,                                                  // listxattrat
    466,                                                  // removexattrat
];

#[cfg(target_arch = "x86_64")]
const ARCH: &[i64] = numbers! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_inotify_init
    SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink
    SYS_rename SYS_rmdir SYS_select SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes
    SYS_vfork SYS_get_thread_area SYS_set_thread_area
};
#[cfg(not(target_arch = "x86_64"))]
const ARCH: &[i64] = &[];

const WITH_CAPABILITY: &[(&str, &[i64])] = &[
    ("CAP_DAC_READ_SEARCH", numbers! { SYS_open_by_handle_at }),
    (
        "CAP_SYS_ADMIN",
        numbers! {
            SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick
            SYS_lookup_dcookie SYS_mount SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open
            SYS_quotactl SYS_quotactl_fd SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare
        },
    ),
    ("CAP_SYS_BOOT", numbers! { SYS_reboot }),
    ("CAP_SYS_CHROOT", numbers! { SYS_chroot }),
    (
        "CAP_SYS_MODULE",
        numbers! { SYS_delete_module SYS_init_module SYS_finit_module },
    ),
    ("CAP_SYS_PACCT", numbers! { SYS_acct }),
    (
        "CAP_SYS_PTRACE",
        numbers! { SYS_kcmp SYS_pidfd_getfd SYS_process_madvise },
    ),
    ("CAP_SYS_TIME", numbers! { SYS_settimeofday SYS_clock_settime }),
    ("CAP_SYS_TTY_CONFIG", numbers! { SYS_vhangup }),
    (
        "CAP_SYS_NICE",
        numbers! { SYS_get_mempolicy SYS_mbind SYS_set_mempolicy },
    ),
    ("CAP_SYSLOG", numbers! { SYS_syslog }),
    ("CAP_BPF", numbers! { SYS_bpf }),
    ("CAP_PERFMON", numbers! { SYS_perf_event_open }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_compiles_within_the_kernel_s_limit() {
        let programs = default_profile(&Capabilities::defaults()).unwrap();
        assert_eq!(programs.len(), 2);
        assert!(programs[0].len() < 4096, "{} instructions", programs[0].len());
    }

    #[test]
    fn new_namespaces_need_cap_sys_admin() {
        let plain = allowed(&Capabilities::defaults()).unwrap();
        assert!(!plain.contains_key(&libc::SYS_unshare) && !plain.contains_key(&libc::SYS_mount));
        assert_eq!(plain[&libc::SYS_clone].len(), 1);
        let admin = allowed(&Capabilities::of(&["SYS_ADMIN".into()], &[]).unwrap()).unwrap();
        assert!(admin.contains_key(&libc::SYS_unshare) && admin[&libc::SYS_clone].is_empty());
    }
}
