//! What the lab's containers run, one module a program, all in one static binary.
//!
//! Owns the programs of the lessons and nothing of k8slab: no module here knows the cluster it runs in. An image is this
//! binary and an entry point; `/bin/curl` in it is the same file under another name.

pub mod condition;
#[cfg(target_os = "linux")]
mod cpu_burner;
mod crd;
mod curl;
#[cfg(test)]
mod in_process;
#[cfg(target_os = "linux")]
mod lease;
pub mod messaggio;
#[cfg(target_os = "linux")]
mod operator;
pub mod replicatore;
#[cfg(target_os = "linux")]
mod server;
pub mod supercrud;
#[cfg(target_os = "linux")]
mod web;

use std::ffi::OsString;
use std::io::Write as _;

/// Arguments to exit code.
type Program = fn(&[String]) -> i32;

/// The programs by name: `k8slab workload NAME`. Containers are Linux; elsewhere only the client runs.
const PROGRAMS: &[(&str, Program)] = &[
    #[cfg(target_os = "linux")]
    ("cpu-burner", cpu_burner::main),
    ("crd", crd::main),
    ("curl", curl::main),
    #[cfg(target_os = "linux")]
    ("messaggio-operator", messaggio::main),
    #[cfg(target_os = "linux")]
    ("replicatore-operator", replicatore::main),
    #[cfg(target_os = "linux")]
    ("supercrud-application", supercrud::application),
    #[cfg(target_os = "linux")]
    ("supercrud-operator", supercrud::operator),
    #[cfg(target_os = "linux")]
    ("web", web::main),
];

/// Runs the program named by the first argument with the rest of them; its exit code.
pub fn main(args: &[OsString]) -> i32 {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let wanted = args.first().map_or("", String::as_str);
    if let Some((_, program)) = PROGRAMS.iter().find(|(name, _)| *name == wanted) {
        return program(&args[1..]);
    }
    let names: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
    complain(&format!(
        "unknown workload `{wanted}`: expected one of {}",
        names.join(", ")
    ));
    2
}

/// One line on standard error: a container's log.
fn complain(line: &str) {
    // There is nobody left to tell when even that fails.
    writeln!(std::io::stderr(), "{line}").ok();
}

/// One line on standard output: a container's log.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}
