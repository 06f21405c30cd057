//! From nothing, or from an existing file, to the first answer.

use apiserver::{Config, Server};

use crate::client::{self, Client};
use crate::runtime;
use crate::times::{ms, now};

const OPENINGS: usize = 5;

pub(crate) fn run() {
    println!("\nready: Server::open and the first answer, best of {OPENINGS}, ms");
    let mut new = f64::INFINITY;
    for _ in 0..OPENINGS {
        let directory = tempfile::tempdir().unwrap();
        new = new.min(open(directory.path()));
    }
    println!("  new file             {new:8.1}");
    for count in [0, 1_000, 10_000] {
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let server = client::server(client::file(directory.path())).await;
            client::fill(&Client::new(&server), count).await;
            server.close().await;
        });
        let best = (0..OPENINGS)
            .map(|_| open(directory.path()))
            .fold(f64::INFINITY, f64::min);
        let size = std::fs::metadata(directory.path().join("store")).unwrap().len() >> 10;
        println!("  file of {count:6} pods  {best:8.1}   ({size} KiB)");
    }
}

fn open(directory: &std::path::Path) -> f64 {
    let runtime = runtime();
    let start = now();
    runtime.block_on(async {
        let server = Server::open(Config::new(client::file(directory))).await.unwrap();
        Client::new(&server).get("/api/v1/namespaces?limit=1").await;
        let took = ms(start.elapsed());
        server.close().await;
        took
    })
}
