//! Create, get, update, patch, delete: one client, and many.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use apiserver::Storage;
use bytes::Bytes;
use serde_json::Value;

use crate::client::{self, Client};
use crate::times::{Disk, now, quantiles};
use crate::{objects, runtime};

const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Writes of one client by which a write is compared with a bare commit, one after the other: disks have moods.
const PAIRS: usize = 300;

pub(crate) fn run() {
    println!("\nverbs on pods of about 1.5 kB");
    println!("  {:28} {:>9} {:>9} {:>9}", "", "ops/s", "p50 ms", "p99 ms");
    let directory = tempfile::tempdir().unwrap();
    for (storage, name) in [(Storage::Memory, "memory"), (client::file(directory.path()), "file")] {
        let durable = storage != Storage::Memory;
        runtime().block_on(async {
            let server = client::server(storage).await;
            let client = Client::new(&server);
            for (clients, each) in [(1, 1_000), (64, 50)] {
                for (verb, act) in VERBS {
                    let (rate, times) = measure(&client, clients, each, act).await;
                    let (p50, p99) = quantiles(times);
                    let title = format!("{name} {verb} ×{clients}");
                    println!("  {title:28} {rate:9.0} {p50:9.3} {p99:9.3}");
                }
            }
            if durable {
                beside_the_disk(&client, directory.path()).await;
            }
            server.close().await;
        });
    }
}

async fn beside_the_disk(client: &Client, directory: &Path) {
    println!("  one client, each write beside a bare fsync of 2 kB");
    println!("  {:28} {:>9} {:>9} {:>9}", "", "p50 ms", "fsync ms", "over ms");
    let disk = Disk::beside(directory);
    for (verb, act) in VERBS.into_iter().filter(|(verb, _)| *verb != "get") {
        let (mut writes, mut commits) = (Vec::new(), Vec::new());
        for i in 0..PAIRS {
            writes.push(once(client, act, i).await);
            commits.push(disk.commit());
        }
        let (write, commit) = (quantiles(writes).0, quantiles(commits).0);
        println!("  {verb:28} {write:9.3} {commit:9.3} {:9.3}", write - commit);
    }
}

const VERBS: [(&str, Verb); 5] = [
    ("create", Verb::Create),
    ("get", Verb::Get),
    ("update", Verb::Update),
    ("patch", Verb::Patch),
    ("delete", Verb::Delete),
];

#[derive(Clone, Copy)]
enum Verb {
    Create,
    Get,
    Update,
    Patch,
    Delete,
}

/// Operations a second over all, and the time of each.
async fn measure(client: &Client, clients: usize, each: usize, verb: Verb) -> (f64, Vec<Duration>) {
    let start = now();
    let tasks: Vec<_> = (0..clients)
        .map(|client_number| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(each);
                for i in client_number * each..(client_number + 1) * each {
                    times.push(once(&client, verb, i).await);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    (times.len() as f64 / start.elapsed().as_secs_f64(), times)
}

async fn once(client: &Client, verb: Verb, i: usize) -> Duration {
    let path = objects::path(i);
    match verb {
        Verb::Create => timed(client.create(&objects::pods(), objects::pod(i))).await,
        Verb::Get => timed(client.get(&path)).await,
        Verb::Update => {
            let mut pod: Value = serde_json::from_slice(&client.get(&path).await).unwrap();
            pod["metadata"]["labels"]["step"] = "two".into();
            timed(client.replace(&path, pod.to_string().into())).await
        }
        Verb::Patch => {
            let body = r#"{"metadata":{"labels":{"step":"three"}}}"#;
            timed(client.patch(&path, STRATEGIC, body.into())).await
        }
        Verb::Delete => timed(client.delete(&format!("{path}?gracePeriodSeconds=0"))).await,
    }
}

async fn timed(act: impl Future<Output = Bytes>) -> Duration {
    let start = now();
    act.await;
    start.elapsed()
}
