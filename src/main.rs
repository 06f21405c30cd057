//! One binary, several roles: the first argument decides before any thread or runtime exists, since namespaces and forks
//! need a process with a single thread.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = role(&args) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    k8slab::cli::run(args).into()
}

/// Runs the role that the arguments ask for; `None` is the command line.
fn role(args: &[OsString]) -> Option<i32> {
    // In a container `/bin/curl` is another name of this file.
    let name = args.first().and_then(|program| Path::new(program).file_name());
    if name.is_some_and(|name| name == "curl") {
        let mut args = args.to_vec();
        args[0] = "curl".into();
        return Some(workloads::main(&args));
    }
    let rest = args.get(1..).unwrap_or_default();
    if rest.first().is_some_and(|first| first == "workload") {
        return Some(workloads::main(&rest[1..]));
    }
    embedded(rest)
}

/// The roles of the embedded cluster.
#[cfg(target_os = "linux")]
fn embedded(args: &[OsString]) -> Option<i32> {
    cluster::dispatch(args)
}

/// The embedded cluster is Linux only.
#[cfg(not(target_os = "linux"))]
fn embedded(_args: &[OsString]) -> Option<i32> {
    None
}
