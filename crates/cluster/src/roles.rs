//! What the binary becomes by its first argument, before any thread or runtime exists: namespaces and forks need that.

use std::ffi::OsString;

/// Runs the role that the arguments (without the program's name) ask for, and returns its exit code; `None` when they
/// ask for none of them.
pub fn dispatch(args: &[OsString]) -> Option<i32> {
    let words: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["shim", ..] => Some(node::runtime::shim::main(&words[1..])),
        ["exec", ..] => Some(node::runtime::exec::main()),
        ["cluster", "run", ..] => Some(crate::daemon::main(&args[2..])),
        _ => None,
    }
}
