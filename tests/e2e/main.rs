//! The built binary, real containers, a real kubectl: what issue and README promise, as a user would see it.
//!
//! Every test has a home and a kubeconfig of its own and leaves nothing behind. They run one after the other: several
//! measure CPU on a machine that may have two cores.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests: they say why they are skipped, and look at the host with its own clock and environment"
)]

mod cpu_hpa;
mod faults;
mod harness;
mod helm;
mod kubectl;
mod leftovers;
mod operators;
mod recovery;
mod rootless;
