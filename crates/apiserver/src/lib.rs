//! A Kubernetes API server as a library: a durable store, the API's verbs over a table of resources, watch, discovery,
//! authentication and RBAC, offered as a tower `Service`.
//!
//! Owns what an API server owns and nothing else: it runs no controller and has never heard of containers, Linux or
//! k8slab. What lies outside (kubelets, aggregated APIs, webhooks) it reaches through the [`Connector`] it is given.

pub mod admission;
pub mod allocation;
mod api;
pub mod auth;
mod body;
pub mod bootstrap;
mod call;
mod config;
mod connector;
mod custom;
mod discovery;
mod dispatch;
mod forward;
mod health;
mod local;
mod openapi;
mod paths;
pub mod protobuf;
mod request;
pub mod resources;
mod respond;
mod seed;
mod serve;
mod server;
pub mod store;
pub mod strategy;
pub mod table;
mod verbs;

pub use body::{Body, BoxError};
pub use config::{Cidr, Config, Storage, Version};
pub use connector::{BoxedStream, Connector, NoConnector, Stream, Target};
pub use server::{OpenError, Server, Service};
