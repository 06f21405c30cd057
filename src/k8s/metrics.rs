//! What `metrics.k8s.io` says about pods.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use kube::Client;
use serde_json::Value;

use super::error::Error;

/// What a pod uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In thousandths of a core.
    pub millicores: i64,
    /// In bytes.
    pub memory: i64,
}

/// The use of every measured pod of a namespace, by name.
pub async fn of_pods(client: &Client, namespace: &str) -> Result<BTreeMap<String, Usage>, Error> {
    let doing = format!("reading the metrics of the pods in `{namespace}`");
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| Error::Pod {
        doing: doing.clone(),
        why: error.to_string(),
    })?;
    let list: Value = client.request(request).await.map_err(|error| Error::of(doing, error))?;
    Ok(read(&list))
}

fn read(list: &Value) -> BTreeMap<String, Usage> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .map(|item| {
            let mut usage = Usage::default();
            for container in item["containers"].as_array().map(Vec::as_slice).unwrap_or_default() {
                let read = |name: &str| Quantity::from_json(&container["usage"][name]).ok();
                usage.millicores += read("cpu").map_or(0, |cpu| cpu.milli());
                usage.memory += read("memory").map_or(0, |memory| memory.value());
            }
            (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), usage)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_use_is_the_sum_of_its_containers() {
        let list = json!({"items": [{"metadata": {"name": "a"}, "containers": [
            {"usage": {"cpu": "1500000n", "memory": "1Ki"}}, {"usage": {"cpu": "10m", "memory": "1"}}]}]});
        assert_eq!(
            read(&list)["a"],
            Usage {
                millicores: 12,
                memory: 1025
            }
        );
    }
}
