//! The kubelet's own HTTP API, as upstream serves it on port 10250: logs, exec, attach, port-forward, figures.
//!
//! Owns paths, queries and the words of errors. It speaks HTTP/1.1 with upgrades on any byte stream; who may ask is the
//! API server's business, which is the only one that can reach it.

mod channels;
mod figures;
mod port_forward;
mod query;
mod spdy_forward;
mod streams;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use ::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use kube::ResourceExt;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use super::lifecycle::{Container, Now, find_container};
use super::logs::{self, LogOptions};
use super::{Kubelet, PodView};
use crate::runtime::ContainerId;
use query::Query;

type Body = BoxBody<Bytes, Infallible>;

/// An answer that is an error: status and text, which the API server puts into a Status.
#[derive(Debug, PartialEq, Eq)]
struct Refused(StatusCode, String);

impl Refused {
    fn not_found(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }

    fn bad_request(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

/// Serves one connection until the peer closes it.
pub(crate) async fn serve<S>(kubelet: Arc<Kubelet>, io: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let kubelet = kubelet.clone();
        async move {
            Ok::<_, Infallible>(
                answer(kubelet, request)
                    .await
                    .unwrap_or_else(|Refused(status, message)| {
                        let mut response = Response::new(text(message));
                        *response.status_mut() = status;
                        response
                    }),
            )
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
    connection.with_upgrades().await.map_err(io::Error::other)
}

async fn answer(kubelet: Arc<Kubelet>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
    let path = request.uri().path().to_owned();
    let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy();
    let parts: Vec<&str> = decoded.trim_matches('/').split('/').collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match parts.as_slice() {
        ["healthz"] if reads => Ok(Response::new(text("ok"))),
        ["pods"] if reads => pods(&kubelet),
        ["metrics", "resource"] if reads => Ok(figures::metrics(&kubelet)),
        ["stats", "summary"] if reads => Ok(figures::summary(&kubelet)),
        ["containerLogs", namespace, pod, container] if reads => log(&kubelet, namespace, pod, container, &query),
        ["exec", namespace, pod, container] => {
            let id = running(&kubelet, namespace, pod, container)?;
            streams::exec(kubelet, request, id, &query)
        }
        ["attach", namespace, pod, container] => {
            let id = running(&kubelet, namespace, pod, container)?;
            let pod = view(&kubelet, namespace, pod)?.borrow().pod.clone();
            streams::attach(kubelet, request, id, &pod, &query)
        }
        ["portForward", namespace, pod] => {
            let pod = view(&kubelet, namespace, pod)?.borrow().clone();
            port_forward::answer(&kubelet, request, &pod, &query)
        }
        _ if !reads => Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed".into())),
        _ => Err(Refused::not_found("404 page not found")),
    }
}

fn text(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).boxed()
}

fn of_type(content: impl Into<Bytes>, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(text(content));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, ::http::HeaderValue::from_static(content_type));
    response
}

fn pods(kubelet: &Kubelet) -> Result<Response<Body>, Refused> {
    let items: Vec<_> = kubelet.views().into_iter().map(|view| view.pod).collect();
    let items: Vec<_> = items.iter().map(|pod| &**pod).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    Ok(of_type(list.to_string(), "application/json"))
}

fn view(kubelet: &Kubelet, namespace: &str, pod: &str) -> Result<watch::Receiver<PodView>, Refused> {
    kubelet
        .pod(namespace, pod)
        .ok_or_else(|| Refused::not_found(format!("pod \"{pod}\" does not exist in namespace \"{namespace}\"")))
}

/// The running instance of a container.
fn running(kubelet: &Kubelet, namespace: &str, pod: &str, container: &str) -> Result<ContainerId, Refused> {
    let view = view(kubelet, namespace, pod)?;
    let view = view.borrow();
    let known = view
        .state
        .containers
        .get(container)
        .filter(|known| known.running().is_some());
    let attempt = known.and_then(|known| known.attempt);
    let attempt = attempt.ok_or_else(|| Refused::not_found(format!("container not found (\"{container}\")")))?;
    Ok(ContainerId::new(view.pod.uid().unwrap_or_default(), container, attempt))
}

fn log(kubelet: &Kubelet, namespace: &str, pod: &str, name: &str, query: &Query) -> Result<Response<Body>, Refused> {
    let mut views = view(kubelet, namespace, pod)?;
    let (id, running) = {
        let view = views.borrow();
        if find_container(&view.pod, name).is_none() {
            return Err(Refused::not_found(format!(
                "container \"{name}\" not found in pod \"{pod}\""
            )));
        }
        let container = view.state.containers.get(name).cloned().unwrap_or_default();
        let attempt = instance(&container, name, pod, query.flag("previous"))?;
        let running = container.running().is_some() && container.attempt == Some(attempt);
        (
            ContainerId::new(view.pod.uid().unwrap_or_default(), name, attempt),
            running,
        )
    };
    let options = log_options(kubelet, query, running)?;
    let attempt = id.attempt;
    let container = name.to_owned();
    let ended = async move {
        let over = |view: &PodView| {
            let known = view.state.containers.get(&container);
            !known.is_some_and(|known| known.attempt == Some(attempt) && known.running().is_some())
        };
        // The pod may go altogether: that is an end too.
        let _ = views.wait_for(over).await;
    };
    let path = kubelet.context.runtime.log_path(&id);
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    tokio::spawn(async move {
        if let Err(error) = logs::send(path.clone(), options, ended, sender).await {
            tracing::warn!("reading the log `{}`: {error}", path.display());
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), receiver))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, ::http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Which instance's log is meant.
fn instance(container: &Container, name: &str, pod: &str, previous: bool) -> Result<u32, Refused> {
    if previous {
        let attempt = match container.now {
            // In back-off the one that ended last is the previous one.
            Now::BackingOff { .. } | Now::Failed { .. } if container.ended.is_some() => container.attempt,
            _ => container.attempt.and_then(|attempt| attempt.checked_sub(1)),
        };
        let text = || format!("previous terminated container \"{name}\" in pod \"{pod}\" not found");
        return attempt.ok_or_else(|| Refused::bad_request(text()));
    }
    let why = match &container.now {
        Now::Failed {
            reason: "ErrImagePull", ..
        } => "image can't be pulled",
        Now::Failed {
            reason: "ImagePullBackOff",
            ..
        } => "trying and failing to pull image",
        Now::Failed { reason, .. } => reason,
        _ => "ContainerCreating",
    };
    let text = || format!("container \"{name}\" in pod \"{pod}\" is waiting to start: {why}");
    container.attempt.ok_or_else(|| Refused::bad_request(text()))
}

fn log_options(kubelet: &Kubelet, query: &Query, running: bool) -> Result<LogOptions, Refused> {
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
            Refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("{name}: Invalid value: {text}: must be greater than or equal to 0"),
            )
        }),
    };
    let since_seconds = number("sinceSeconds")?.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    let since_time = query.get("sinceTime").map(|text| text.parse::<jiff::Timestamp>());
    let since_time = since_time
        .transpose()
        .map_err(|error| Refused::bad_request(format!("sinceTime: {error}")))?;
    let now = kubelet.context.clock.now();
    let since = since_seconds.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
    Ok(LogOptions {
        // The log of a container that has ended is complete.
        follow: query.flag("follow") && running,
        timestamps: query.flag("timestamps"),
        since: since.or(since_time),
        tail: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        stream: match query.get("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(other) => {
                return Err(Refused::bad_request(format!(
                    "stream: expected All, Stdout or Stderr, got `{other}`"
                )));
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::lifecycle::Terminated;

    fn ended() -> Option<Terminated> {
        Some(Terminated::unknown(None, jiff::Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn the_log_that_is_meant_depends_on_what_the_container_does() {
        let of = |container: &Container, previous| instance(container, "c", "p", previous).map_err(|refused| refused.1);
        let fresh = Container::default();
        assert_eq!(
            of(&fresh, false),
            Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating".into())
        );
        let pull = Container {
            now: Now::Failed {
                reason: "ErrImagePull",
                message: String::new(),
                retry_at: jiff::Timestamp::UNIX_EPOCH,
            },
            ..Default::default()
        };
        assert_eq!(
            of(&pull, false),
            Err("container \"c\" in pod \"p\" is waiting to start: image can't be pulled".into())
        );
        assert_eq!(
            of(&fresh, true),
            Err("previous terminated container \"c\" in pod \"p\" not found".into())
        );
        let again = Container {
            attempt: Some(3),
            ended: ended(),
            ..Default::default()
        };
        assert_eq!((of(&again, false), of(&again, true)), (Ok(3), Ok(2)));
        let until = jiff::Timestamp::UNIX_EPOCH;
        let crashing = Container {
            now: Now::BackingOff {
                delay: SignedDuration::ZERO,
                until,
            },
            ..again
        };
        assert_eq!((of(&crashing, false), of(&crashing, true)), (Ok(3), Ok(3)));
    }
}
