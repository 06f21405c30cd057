//! Who makes a request, and may they? Keys and certificates, authentication, RBAC, reviews, tokens, and the policy a
//! cluster starts with.
//!
//! Owns identity and permission, nothing of objects beyond reading them through [`View`](crate::store::View). Every
//! function here is synchronous and free of I/O, except [`Pki::load_or_create`].

mod authenticate;
mod bootstrap_policy;
pub mod identity;
pub mod oidc;
mod pki;
pub mod rbac;
mod remembered;
pub mod reviews;
#[cfg(test)]
mod testing;
mod tls;
pub mod token;
pub mod token_request;

use std::sync::LazyLock;

use apimachinery::gvk::GroupResource;

pub use authenticate::{authenticate, impersonate};
pub use bootstrap_policy::bootstrap_policy;
pub use identity::{Identity, service_account_user, split_service_account_user};
pub use pki::{CertifiedKey, FRONT_PROXY_USER, ISSUER, Pki, PkiError};

static SERVICE_ACCOUNTS: LazyLock<GroupResource> = LazyLock::new(|| GroupResource::new("", "serviceaccounts"));
static PODS: LazyLock<GroupResource> = LazyLock::new(|| GroupResource::new("", "pods"));
static NODES: LazyLock<GroupResource> = LazyLock::new(|| GroupResource::new("", "nodes"));
static SECRETS: LazyLock<GroupResource> = LazyLock::new(|| GroupResource::new("", "secrets"));
