//! Create, get, update, patch, delete: one client, and many.

use std::future::Future;
use std::time::Duration;

use apiserver::Storage;
use bytes::Bytes;
use serde_json::Value;

use crate::client::{self, Client};
use crate::times::{fsync, now, quantiles};
use crate::{objects, runtime};

const STRATEGIC: &str = "application/strategic-merge-patch+json";

pub(crate) fn run() {
    let directory = tempfile::tempdir().unwrap();
    let disk = fsync(directory.path());
    println!("\nverbs on pods of about 1.5 kB; one fsync of this disk takes {disk:.3} ms");
    println!(
        "  {:28} {:>9} {:>9} {:>9} {:>14}",
        "", "ops/s", "p50 ms", "p99 ms", "p50 − fsync ms"
    );
    for (storage, name) in [(Storage::Memory, "memory"), (client::file(directory.path()), "file")] {
        let durable = storage != Storage::Memory;
        runtime().block_on(async {
            let server = client::server(storage).await;
            let client = Client::new(&server);
            for (clients, each) in [(1, 1_000), (64, 50)] {
                let run = |verb: &'static str, act: Verb| {
                    let client = client.clone();
                    async move {
                        let (rate, times) = measure(&client, clients, each, act).await;
                        let (p50, p99) = quantiles(times);
                        let over = match durable && !matches!(act, Verb::Get) && clients == 1 {
                            true => format!("{:14.3}", p50 - disk),
                            false => String::new(),
                        };
                        let title = format!("{name} {verb} ×{clients}");
                        println!("  {title:28} {rate:9.0} {p50:9.3} {p99:9.3} {over}");
                    }
                };
                run("create", Verb::Create).await;
                run("get", Verb::Get).await;
                run("update", Verb::Update).await;
                run("patch", Verb::Patch).await;
                run("delete", Verb::Delete).await;
            }
            server.close().await;
        });
    }
}

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
