//! Lists of a thousand and of ten thousand pods, in every form.

use apiserver::Storage;

use crate::client::{self, Client, TABLE};
use crate::times::{ms, now};
use crate::{objects, runtime};

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

pub(crate) fn run() {
    println!("\nlists of pods, best of 5");
    println!("  {:28} {:>9} {:>9} {:>12}", "", "ms", "MiB", "µs an object");
    runtime().block_on(async {
        let server = client::server(Storage::Memory).await;
        let client = Client::new(&server);
        client::fill(&client, 10_000).await;
        for (count, name) in [(1_000, "1k"), (10_000, "10k")] {
            for (form, accept) in [("json", JSON), ("table", TABLE), ("metadata", METADATA)] {
                let path = format!("{}?limit={count}", objects::pods());
                measure(&client, &format!("{name} {form}"), &path, accept, count).await;
            }
        }
        for (name, selector) in [
            ("labels", "labelSelector=shard%3D0"),
            ("a field", "fieldSelector=spec.nodeName%3Dnone"),
            ("a name", "fieldSelector=metadata.name%3Dweb-7d9f6c5b8-00007"),
        ] {
            let path = format!("{}?{selector}", objects::pods());
            measure(&client, &format!("10k json by {name}"), &path, JSON, 10_000).await;
        }
        server.close().await;
    });
}

async fn measure(client: &Client, name: &str, path: &str, accept: &str, count: usize) {
    let (mut best, mut length) = (f64::INFINITY, 0);
    for _ in 0..5 {
        let start = now();
        length = client.drain(path, accept).await;
        best = best.min(ms(start.elapsed()));
    }
    let (mib, each) = (length as f64 / f64::from(1 << 20), best * 1e3 / count as f64);
    println!("  {name:28} {best:9.2} {mib:9.2} {each:12.2}");
}
