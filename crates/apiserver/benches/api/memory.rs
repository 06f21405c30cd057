//! Memory of a process that is nothing but an API server. Each figure comes from a process of its own.

use std::path::Path;

use apiserver::{Config, Server};

use crate::client::{self, Client, TABLE};
use crate::{objects, runtime};

/// As the first argument: this process is measured, not measuring.
pub(crate) const CHILD: &str = "memory-of";

pub(crate) fn run() {
    println!("\nmemory of the process, KiB (anonymous: what the server itself took)");
    println!("  {:28} {:>9} {:>9} {:>9}", "", "Rss", "anonymous", "a pod");
    let mut base = 0;
    for count in [0, 1_000, 10_000] {
        let directory = tempfile::tempdir().unwrap();
        for (what, name) in [
            ("fill", "after creating"),
            ("open", "after opening"),
            ("use", "after reading all"),
        ] {
            let [rss, anonymous] = measured(directory.path(), what, count);
            if count == 0 && what == "open" {
                base = anonymous;
            }
            let each = match count {
                0 => String::new(),
                _ => format!("{:9.2}", anonymous.saturating_sub(base) as f64 / count as f64),
            };
            let title = format!("{name} {count}");
            println!("  {title:28} {rss:9} {anonymous:9} {each}");
        }
    }
}

fn measured(directory: &Path, what: &str, count: usize) -> [usize; 2] {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([CHILD, what, &count.to_string()]).arg(directory);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}

/// Opens the store, does what it is told and prints what it has become.
pub(crate) fn child(arguments: &[String]) {
    let [what, count, directory] = arguments else {
        panic!("expected WHAT COUNT DIRECTORY");
    };
    let (count, storage) = (count.parse().unwrap(), client::file(Path::new(directory)));
    runtime().block_on(async {
        let server = match what.as_str() {
            "fill" => {
                let server = client::server(storage).await;
                client::fill(&Client::new(&server), count).await;
                server
            }
            _ => Server::open(Config::new(storage)).await.unwrap(),
        };
        if what == "use" {
            let client = Client::new(&server);
            for accept in ["application/json", TABLE] {
                client.drain(&objects::pods(), accept).await;
            }
        }
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let of = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").to_owned()
        };
        println!("{} {}", of("Rss:"), of("Anonymous:"));
        server.close().await;
    });
}
