//! `log`, `exec`, `attach`, `portforward`: handed on to the kubelet of the pod's node.
//!
//! Owns which container is meant and the words when none is. What a session says is passed through unread.
//! Source: k/k `pkg/registry/core/pod/strategy.go` (LogLocation, streamLocation, validateContainer), 1.36.

use apimachinery::status::Status;
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::call::{Answer, Call};
use crate::connector::Target as Destination;
use crate::forward;
use crate::respond;
use crate::verbs::{Target, metadata};

/// What a kubelet says of its refusal is a line; more is cut.
const MAX_REFUSAL: usize = 2048;

/// Asks the kubelet.
pub(super) async fn handle(call: &Call, target: &Target) -> Answer {
    let pod = respond::served_value(&target.resource, &target.current(&call.api)?);
    let node = pod
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let (namespace, name) = (metadata::text(&pod, "namespace"), metadata::text(&pod, "name"));
    let path = match target.subresource.as_str() {
        "portforward" => format!("/portForward/{namespace}/{name}"),
        subresource => {
            let container = container(call, &pod)?;
            let container = utf8_percent_encode(&container, NON_ALPHANUMERIC);
            let role = if subresource == "log" {
                "containerLogs"
            } else {
                subresource
            };
            format!("/{role}/{namespace}/{name}/{container}")
        }
    };
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    if target.subresource == "log" {
        check_log_query(call)?;
    }
    let query = if call.raw_query.is_empty() {
        String::new()
    } else {
        format!("?{}", call.raw_query)
    };
    let response = forward::request(call, Destination::Kubelet { node }, &format!("{path}{query}")).await?;
    if response.status().is_success() || response.status().as_u16() == 101 {
        return Ok(response);
    }
    refusal(response).await
}

/// The container that is meant: the one named, else the only one.
fn container(call: &Call, pod: &Value) -> Result<String, Status> {
    let of = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array();
        list.into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (own, init, ephemeral) = (of("containers"), of("initContainers"), of("ephemeralContainers"));
    let name = metadata::text(pod, "name");
    let given = call.query.text("container").unwrap_or_default();
    if !given.is_empty() {
        let known = own
            .iter()
            .chain(&init)
            .chain(&ephemeral)
            .any(|container| container == given);
        return if known {
            Ok(given.to_owned())
        } else {
            Err(Status::bad_request(format!(
                "container {given} is not valid for pod {name}"
            )))
        };
    }
    if let ([only], true) = (own.as_slice(), init.is_empty()) {
        return Ok(only.clone());
    }
    let mut choice = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        own.join(" ")
    );
    if !init.is_empty() {
        choice = format!("{choice} or one of the init containers: [{}]", init.join(" "));
    }
    if own.len() == 1 && call.method == http::Method::GET && call.query.text("command").is_none() && init.is_empty() {
        return Ok(own[0].clone());
    }
    Err(Status::bad_request(choice))
}

fn check_log_query(call: &Call) -> Result<(), Status> {
    for name in ["tailLines", "limitBytes", "sinceSeconds"] {
        if let Some(number) = call.query.number(name)?
            && (number < 0 || (name != "tailLines" && number == 0))
        {
            let least = if name == "tailLines" {
                "greater than or equal to 0"
            } else {
                "greater than 0"
            };
            return Err(Status::bad_request(format!(
                "{name}: Invalid value: {number}: must be {least}"
            )));
        }
    }
    Ok(())
}

/// The kubelet's line as a `Status`, with its code.
async fn refusal(response: http::Response<crate::body::Body>) -> Answer {
    let code = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(Status::internal)?
        .to_bytes();
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_REFUSAL)])
        .trim()
        .to_owned();
    let mut status = match code {
        400 => Status::bad_request(text),
        404 => Status {
            code: 404,
            ..Status::bad_request(text)
        },
        code if code < 500 => Status {
            code,
            ..Status::bad_request(text)
        },
        _ => Status::internal(text),
    };
    if code == 404 {
        status.reason = Some(apimachinery::status::Reason::NotFound);
    }
    Err(status)
}
