//! Real containers, as root and as an ordinary user.
//!
//! This binary is at first what its arguments say: the runtime's roles `shim` and `exec`, or the program inside a
//! container (`w`). Otherwise it runs the cases, all or those whose name contains an argument.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test harness of our own")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod cases;
mod lab;
mod program;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use node::privileges::{self, Means};

use self::lab::Lab;

/// The slowest case takes two seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let role = args.first().map_or("", String::as_str);
    let code = match role {
        "shim" => node::runtime::shim::main(&args[1..]),
        "exec" => node::runtime::exec::main(),
        "w" => program::main(&args[1..]),
        "as-user" => as_user(&args[1..]),
        "daemon" => daemon(&args[1..]),
        _ => as_caller(&args),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn as_caller(args: &[String]) -> i32 {
    if args.iter().any(|arg| arg == "--list") {
        return 0;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(*filter));
    match privileges::detect() {
        Ok(Means::Root) => {}
        other => {
            let why = other.map_or_else(|denied| denied.to_string(), |_| "not root".into());
            #[expect(
                clippy::disallowed_methods,
                reason = "the switch that makes a skipped test a failed one"
            )]
            let strict = std::env::var("K8SLAB_TEST_STRICT").is_ok_and(|value| value == "1");
            println!(
                "runtime tests {}: they make containers, and {why}",
                if strict { "FAILED" } else { "skipped" }
            );
            return i32::from(strict);
        }
    }
    let failed = run(cases::ROOT, &chosen, true);
    lab::finish();
    if failed > 0
        || !cases::ROOTLESS
            .iter()
            .any(|case| chosen(&format!("rootless_{}", case.name)))
    {
        return i32::from(failed > 0);
    }
    run_as_nobody(args, &chosen)
}

/// The same again without privileges, in a process of its own: entering a user namespace cannot be undone.
fn run_as_nobody(args: &[String], chosen: &dyn Fn(&str) -> bool) -> i32 {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let home = tempfile::Builder::new().prefix("k8slab-nobody-").tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // A copy: the build folder may be closed to others.
    let binary = home.path().join("runtime");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let nobody = |role: &str| {
        let mut command = Command::new(&binary);
        command
            .arg(role)
            .arg(home.path())
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/");
        command
    };
    if cases::ROOTLESS
        .iter()
        .any(|case| case.name.contains("adopted") && chosen(&format!("rootless_{}", case.name)))
    {
        wait_and_kill(nobody("daemon").arg("user"));
    }
    let status = nobody("as-user").args(args).status().unwrap();
    status.code().unwrap_or(1)
}

/// Runs the role `daemon` until its pod is up, and kills it.
pub fn daemon_that_dies(home: &Path) {
    let own = std::env::current_exe().unwrap();
    wait_and_kill(Command::new(own).arg("daemon").arg(home).arg("root"));
}

fn wait_and_kill(command: &mut Command) {
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "up\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn daemon(args: &[String]) -> i32 {
    let [home, who] = args else { return 2 };
    lab::set_home(home.into());
    if who == "user"
        && let Err(denied) = privileges::enter_user_namespace(&lab::home().join("rootless/pods"))
    {
        eprintln!("{denied}");
        return 1;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { cases::as_daemon(Lab::open(who == "root").await).await });
    0
}

fn as_user(args: &[String]) -> i32 {
    let Some((home, filters)) = args.split_first() else {
        return 2;
    };
    let pods = PathBuf::from(home).join("rootless/pods");
    if let Err(denied) = privileges::enter_user_namespace(&pods) {
        println!(
            "{denied}\n{}",
            denied.hints(&std::env::current_exe().unwrap(), "up cpu-hpa").join("\n")
        );
        return 1;
    }
    lab::set_home(home.into());
    let chosen = |name: &str| {
        let mut filters = filters.iter().filter(|arg| !arg.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    i32::from(run(cases::ROOTLESS, &|name| chosen(&format!("rootless_{name}")), false) > 0)
}

fn run(cases: &[cases::Case], chosen: &dyn Fn(&str) -> bool, root: bool) -> usize {
    let mut failed = 0;
    for case in cases.iter().filter(|case| chosen(case.name)) {
        let name = if root {
            case.name.to_string()
        } else {
            format!("rootless_{}", case.name)
        };
        // A runtime each: its threads must be gone before the next looks for leftovers.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (work, root) = (case.work, root);
        let outcome = runtime.block_on(async move {
            let task = tokio::spawn(async move {
                let lab = Lab::open(root).await;
                work(lab).await
            });
            tokio::time::timeout(PATIENCE, task).await
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        let problem = match outcome {
            Ok(Ok(())) => lab::leftovers().map(|left| format!("left behind: {left}")),
            Ok(Err(panic)) => Some(format!("{panic}")),
            Err(_) => Some(format!("not done after {PATIENCE:?}")),
        };
        match problem {
            None => println!("test {name} ... ok"),
            Some(problem) => {
                failed += 1;
                println!("test {name} ... FAILED: {problem}");
                lab::sweep();
            }
        }
    }
    failed
}
