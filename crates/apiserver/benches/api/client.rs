//! The barest client: requests straight into the tower service, no kube types, so that only the server is measured.

use std::path::Path;

use apiserver::{Body, Config, Server, Service, Storage};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

use crate::objects;

/// What kubectl sends with `get`.
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[derive(Clone)]
pub(crate) struct Client(Service);

impl Client {
    pub(crate) fn new(server: &Server) -> Self {
        Self(server.service(apiserver::auth::Identity::new("system:admin", ["system:masters"])))
    }

    /// Answers with the body, unread.
    pub(crate) async fn open(&self, method: Method, path: &str, kind: &'static str, accept: &str, body: Bytes) -> Body {
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(CONTENT_TYPE, kind);
        let request = request.header(ACCEPT, accept).body(Full::new(body)).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body();
        if status.as_u16() >= 300 && status != StatusCode::CONFLICT {
            let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            panic!("{method} {path}: {status}: {}", String::from_utf8_lossy(&text));
        }
        body
    }

    async fn whole(&self, method: Method, path: &str, kind: &'static str, body: Bytes) -> Bytes {
        let body = self.open(method, path, kind, "application/json", body).await;
        body.collect().await.unwrap().to_bytes()
    }

    pub(crate) async fn get(&self, path: &str) -> Bytes {
        self.whole(Method::GET, path, "application/json", Bytes::new()).await
    }

    pub(crate) async fn create(&self, path: &str, body: Bytes) -> Bytes {
        self.whole(Method::POST, path, "application/json", body).await
    }

    pub(crate) async fn replace(&self, path: &str, body: Bytes) -> Bytes {
        self.whole(Method::PUT, path, "application/json", body).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &'static str, body: Bytes) -> Bytes {
        self.whole(Method::PATCH, path, kind, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Bytes {
        self.whole(Method::DELETE, path, "application/json", Bytes::new()).await
    }

    /// Reads a body to its end without keeping it; its length.
    pub(crate) async fn drain(&self, path: &str, accept: &str) -> usize {
        let body = self
            .open(Method::GET, path, "application/json", accept, Bytes::new())
            .await;
        let mut stream = body.into_data_stream();
        let mut length = 0;
        while let Some(chunk) = stream.next().await {
            length += chunk.unwrap().len();
        }
        length
    }
}

/// A server with what pods need: their namespace and its service account.
pub(crate) async fn server(storage: Storage) -> Server {
    let server = Server::open(Config::new(storage)).await.unwrap();
    let client = Client::new(&server);
    let namespace = format!(r#"{{"metadata":{{"name":"{}"}}}}"#, objects::NAMESPACE);
    client.create("/api/v1/namespaces", namespace.into()).await;
    let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", objects::NAMESPACE);
    client
        .create(&accounts, r#"{"metadata":{"name":"default"}}"#.into())
        .await;
    server
}

pub(crate) fn file(directory: &Path) -> Storage {
    Storage::File(directory.join("store"))
}

/// Makes pods `0..count`, many at a time.
pub(crate) async fn fill(client: &Client, count: usize) {
    let mut running = FuturesUnordered::new();
    for i in 0..count {
        if running.len() == 64 {
            running.next().await;
        }
        running.push(async move { client.create(&objects::pods(), objects::pod(i)).await });
    }
    while running.next().await.is_some() {}
}
