//! PersistentVolumes and their claims: which belong together, and when they may go.
//!
//! [`binder`] is upstream's PV controller, [`protection`] its two protection controllers, [`matching`] the pure part:
//! which volume satisfies which claim. Must not know how a volume is made: provisioners watch the claims themselves.

mod binder;
mod matching;
mod protection;

pub(crate) use binder::start as start_binder;
pub(crate) use protection::{start_claims as start_claim_protection, start_volumes as start_volume_protection};
