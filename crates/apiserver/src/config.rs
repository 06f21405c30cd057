//! `Config`: every knob of the API server, as a value.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::clock::{Clock, SystemClock};

use crate::auth::Pki;
use crate::connector::{Connector, NoConnector};

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Gone with the process.
    Memory,
    /// One file; made if it does not exist.
    File(PathBuf),
}

/// A range of addresses, as `10.96.0.0/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub address: Ipv4Addr,
    /// How many leading bits are fixed, 0 to 32.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What `/version` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `1`
    pub major: String,
    /// `36`: clients read it as a number.
    pub minor: String,
    /// `v1.36.2`: clients read it as a semantic version.
    pub git_version: String,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            major: "1".to_owned(),
            minor: "36".to_owned(),
            git_version: "v1.36.2".to_owned(),
        }
    }
}

/// Every knob.
#[derive(Clone)]
pub struct Config {
    /// Where objects are kept.
    pub storage: Storage,
    /// The way to kubelets, aggregated APIs and webhooks.
    pub connector: Arc<dyn Connector>,
    /// Where timestamps come from.
    pub clock: Arc<dyn Clock>,
    /// Where ClusterIPs come from.
    pub service_cidr: Cidr,
    /// Where NodePorts come from.
    pub node_ports: RangeInclusive<u16>,
    /// Keys and certificates; without them they are made and live as long as the process.
    pub pki: Option<Arc<Pki>>,
    /// Where the server is reached over the network; clients in the cluster find it there. Port 6443 on the loopback
    /// address if nothing is said.
    pub api_server: Option<SocketAddr>,
    /// What `/version` says.
    pub version: Version,
}

impl Config {
    /// Upstream's defaults over `storage`, with nothing outside to connect to.
    pub fn new(storage: Storage) -> Self {
        Self {
            storage,
            connector: Arc::new(NoConnector),
            clock: Arc::new(SystemClock),
            service_cidr: Cidr {
                address: Ipv4Addr::new(10, 96, 0, 0),
                prefix: 12,
            },
            node_ports: 30000..=32767,
            pki: None,
            api_server: None,
            version: Version::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("storage", &self.storage)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
