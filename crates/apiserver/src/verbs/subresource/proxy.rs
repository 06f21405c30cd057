//! `pods/[SCHEME:]NAME[:PORT]/proxy/…`, `services/…/proxy/…`: a request to a pod's or a Service's HTTP server.
//!
//! Owns finding the address. Source: k/k `pkg/registry/core/{pod,service}/storage`, `apimachinery/pkg/util/net`
//! (SplitSchemeNamePort), 1.36. Plain HTTP only.

use std::net::{IpAddr, SocketAddr};

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use serde_json::Value;

use crate::call::{Answer, Call};
use crate::connector::Target as Destination;
use crate::forward;
use crate::request::ResourcePath;
use crate::verbs::Target;

/// Hands the request on to where the path leads.
pub(super) async fn handle(call: &Call, target: &Target, path: &ResourcePath) -> Answer {
    let (name, port) = split(&target.name)?;
    let namespace = target.namespace.as_deref();
    let found = match target.resource.plural.as_str() {
        "pods" => pod(call, namespace, &name, port.as_deref()),
        "services" => service(call, namespace, &name, port.as_deref()),
        _ => return Err(super::not_implemented("the node proxy")),
    };
    let address = found?;
    let rest = path.rest.as_deref().unwrap_or_default();
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let query = if call.raw_query.is_empty() {
        String::new()
    } else {
        format!("?{}", call.raw_query)
    };
    forward::request(call, Destination::Address(address), &format!("{slash}{rest}{query}")).await
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
fn split(text: &str) -> Result<(String, Option<String>), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts[..] {
        [name] => ("http", name, None),
        [name, port] => ("http", name, Some(port)),
        [scheme, name, port] => (scheme, name, Some(port)),
        _ => return Err(Status::bad_request(format!("invalid proxy name {text:?}"))),
    };
    match scheme {
        "http" | "" => Ok((name.to_owned(), port.filter(|port| !port.is_empty()).map(str::to_owned))),
        "https" => Err(super::not_implemented("the proxy to https servers")),
        _ => Err(Status::bad_request(format!("invalid proxy name {text:?}"))),
    }
}

fn pod(call: &Call, namespace: Option<&str>, name: &str, port: Option<&str>) -> Result<SocketAddr, Status> {
    let pods = GroupResource::new("", "pods");
    let pod = call
        .api
        .view()
        .get(&pods, namespace, name)
        .ok_or_else(|| Status::not_found(&pods, name))?;
    let ip: IpAddr = match pod.pointer("/status/podIP").and_then(Value::as_str).map(str::parse) {
        Some(Ok(ip)) => ip,
        _ => return Err(Status::bad_request("address not allowed")),
    };
    let containers = || pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers().flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let number = match port {
        None => ports
            .next()
            .and_then(|port| port["containerPort"].as_u64())
            .or(Some(80)),
        Some(text) => text.parse().ok().or_else(|| {
            ports
                .find(|port| port["name"] == text)
                .and_then(|port| port["containerPort"].as_u64())
        }),
    };
    let number = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0);
    let number = number.ok_or_else(|| Status::bad_request(format!("invalid port {:?}", port.unwrap_or_default())))?;
    Ok(SocketAddr::new(ip, number))
}

/// A ready endpoint of the Service, by the name or number of the Service's port.
fn service(call: &Call, namespace: Option<&str>, name: &str, port: Option<&str>) -> Result<SocketAddr, Status> {
    let services = GroupResource::new("", "services");
    let service = call
        .api
        .view()
        .get(&services, namespace, name)
        .ok_or_else(|| Status::not_found(&services, name))?;
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let chosen = match port {
        None => ports.next(),
        Some(wanted) => {
            ports.find(|p| p["name"] == wanted || p["port"].as_u64().is_some_and(|port| wanted.parse() == Ok(port)))
        }
    };
    let unavailable = |detail: String| Status::service_unavailable(detail);
    let chosen = chosen.ok_or_else(|| {
        unavailable(format!(
            "no service port {:?} found for service {name:?}",
            port.unwrap_or_default()
        ))
    })?;
    let port_name = chosen["name"].as_str().unwrap_or_default();
    let slices = call
        .api
        .view()
        .list(&GroupResource::new("discovery.k8s.io", "endpointslices"), namespace);
    for slice in &slices {
        if slice
            .pointer("/metadata/labels/kubernetes.io~1service-name")
            .and_then(Value::as_str)
            != Some(name)
        {
            continue;
        }
        let mut slice_ports = slice["ports"].as_array().into_iter().flatten();
        let number = slice_ports
            .find(|p| p["name"].as_str().unwrap_or_default() == port_name)
            .and_then(|p| p["port"].as_u64());
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else {
            continue;
        };
        let ready = |endpoint: &&Value| {
            endpoint
                .pointer("/conditions/ready")
                .and_then(Value::as_bool)
                .unwrap_or(true)
        };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten().filter(ready) {
            if let Some(Ok(ip)) = endpoint["addresses"][0].as_str().map(str::parse) {
                return Ok(SocketAddr::new(ip, number));
            }
        }
    }
    Err(unavailable(format!("no endpoints available for service {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_a_port_and_perhaps_a_scheme() {
        assert_eq!(split("web").unwrap(), ("web".into(), None));
        assert_eq!(split("web:8000").unwrap(), ("web".into(), Some("8000".into())));
        assert_eq!(split("http:web:http").unwrap(), ("web".into(), Some("http".into())));
        assert_eq!(split("https:web:443").unwrap_err().code, 501);
        assert_eq!(split("a:b:c:d").unwrap_err().code, 400);
    }
}
