//! Figures of the API server, without a socket: verbs, lists, watches, time to ready, memory.
//!
//! `cargo bench -p k8slab-apiserver --bench api [-- SECTION…]`. Sections: `ready`, `verbs`, `lists`, `watches`, `memory`.
//! It prints and asserts nothing: a busy machine is no reason to fail. What a disk does is measured beside and given as
//! a ratio, so that figures of two machines can be compared.
#![expect(clippy::print_stdout, reason = "the figures are its output")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to say")]

mod client;
mod lists;
mod memory;
mod objects;
mod ready;
mod times;
mod verbs;
mod watches;

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [section, rest @ ..] = arguments.as_slice()
        && section == memory::CHILD
    {
        return memory::child(rest);
    }
    let wanted = |section: &str| arguments.is_empty() || arguments.iter().any(|arg| arg == section);
    if wanted("ready") {
        ready::run();
    }
    if wanted("verbs") {
        verbs::run();
    }
    if wanted("lists") {
        lists::run();
    }
    if wanted("watches") {
        watches::run();
    }
    if wanted("memory") {
        memory::run();
    }
}

/// The runtime as a daemon has it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
