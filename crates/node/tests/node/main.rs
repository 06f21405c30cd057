//! A whole node under an API server in process: real containers, as root.
//!
//! This binary is at first what its arguments say: the runtime's roles `shim` and `exec`, or the program inside a
//! container (`w`). Otherwise it runs the cases, all or those whose name contains an argument; `figures` measures.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test harness of our own")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod cases;
mod lab;
#[path = "../runtime/program.rs"]
mod program;
mod registry;

use std::process::ExitCode;
use std::time::Duration;

use node::privileges::{self, Means};

/// The slowest case takes some seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let code = match args.first().map_or("", String::as_str) {
        "shim" => node::runtime::shim::main(&args[1..]),
        "exec" => node::runtime::exec::main(),
        "w" => program::main(&args[1..]),
        _ => run(&args),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the switch that makes a skipped test a failed one"
)]
fn strict() -> bool {
    std::env::var("K8SLAB_TEST_STRICT").is_ok_and(|value| value == "1")
}

fn run(args: &[String]) -> i32 {
    if args.iter().any(|arg| arg == "--list") {
        return 0;
    }
    if !matches!(privileges::detect(), Ok(Means::Root)) {
        let strict = strict();
        let outcome = if strict { "FAILED" } else { "skipped" };
        println!("node tests {outcome}: they make containers, which takes root here");
        return i32::from(strict);
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut failed = 0;
    for case in cases::ALL {
        let named = filters.iter().any(|filter| case.name.contains(*filter));
        let chosen = if filters.is_empty() {
            !case.only_on_request
        } else {
            named
        };
        if !chosen {
            continue;
        }
        let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, tokio::spawn((case.run)())).await });
        let fine = matches!(outcome, Ok(Ok(())));
        println!("test {} ... {}", case.name, if fine { "ok" } else { "FAILED" });
        if !fine {
            runtime.block_on(lab::clean_up());
        }
        failed += i32::from(!fine);
    }
    failed
}
