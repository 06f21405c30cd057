//! How fast changes reach one, a hundred and a thousand watchers.

use apiserver::Storage;
use bytes::Bytes;
use futures::StreamExt;
use http::Method;
use http_body_util::BodyExt;

use crate::client::{self, Client, TABLE};
use crate::times::{ms, now, quantiles};
use crate::{objects, runtime};

const CHANGES: usize = 200;

pub(crate) fn run() {
    println!("\nwatch fan-out: {CHANGES} pods made one after the other, until every watcher has seen them");
    println!("  {:28} {:>9} {:>12} {:>16}", "", "ms", "events/s", "one change, ms");
    for (watchers, form) in [
        (1, "json"),
        (100, "json"),
        (1_000, "json"),
        (100, "labels"),
        (100, "nodeName"),
        (100, "table"),
    ] {
        runtime().block_on(async move {
            let server = client::server(Storage::Memory).await;
            let client = Client::new(&server);
            let (query, accept) = match form {
                "labels" => ("&labelSelector=app%3Dweb", "application/json"),
                // As the scheduler watches.
                "nodeName" => ("&fieldSelector=spec.nodeName%3D", "application/json"),
                "table" => ("", TABLE),
                _ => ("", "application/json"),
            };
            let path = format!(
                "{}?watch=true&resourceVersion={}{query}",
                objects::pods(),
                server.revision()
            );
            let mut seen = Vec::new();
            for _ in 0..watchers {
                let body = client
                    .open(Method::GET, &path, "application/json", accept, Bytes::new())
                    .await;
                seen.push(tokio::spawn(async move {
                    let mut stream = body.into_data_stream();
                    let mut lines = 0;
                    while lines < CHANGES {
                        let chunk = stream.next().await.unwrap().unwrap();
                        lines += chunk.iter().filter(|byte| **byte == b'\n').count();
                    }
                }));
            }
            let start = now();
            let mut each = Vec::new();
            for i in 0..CHANGES {
                let start = now();
                client.create(&objects::pods(), objects::pod(i)).await;
                each.push(start.elapsed());
            }
            for task in seen {
                task.await.unwrap();
            }
            let took = start.elapsed();
            let rate = (watchers * CHANGES) as f64 / took.as_secs_f64();
            let name = format!("{watchers} × {form}");
            println!("  {name:28} {:9.1} {rate:12.0} {:16.3}", ms(took), quantiles(each).0);
            server.close().await;
        });
    }
}
