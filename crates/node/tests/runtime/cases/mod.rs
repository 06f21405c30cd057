//! The cases. Each gets a lab of its own and leaves nothing of its pods behind.

mod life;
mod resources;
mod sandbox;
mod streams;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use node::runtime::User;

pub(crate) use self::life::as_daemon;
use self::life::*;
use self::resources::*;
use self::sandbox::*;
use self::streams::*;
use crate::lab::Lab;

pub(crate) struct Case {
    pub name: &'static str,
    pub work: fn(Lab) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

macro_rules! cases {
    ($($name:ident)*) => { &[$(Case { name: stringify!($name), work: |lab| Box::pin($name(lab)) }),*] };
}

pub(crate) const ROOT: &[Case] = cases! {
    a_container_sees_what_was_asked_for_and_no_more
    the_sandbox_forbids_what_containerd_forbids
    containers_of_a_pod_share_what_a_pod_shares
    no_line_of_a_log_is_lost
    a_command_is_executed_inside
    a_command_gets_a_terminal
    a_command_that_is_given_up_is_killed
    signals_end_containers_and_their_children
    a_container_beyond_its_memory_is_oom_killed
    a_cpu_limit_holds_and_is_measured
    what_cannot_be_started_says_why
    pods_talk_to_each_other_and_the_node_to_them
    volumes_are_where_they_should_be_and_lead_nowhere_else
    an_attached_client_reads_and_writes
    a_dead_daemon_s_pods_are_adopted
    a_pod_whose_shim_dies_dies_with_it
    removing_a_pod_in_the_middle_of_everything
    twenty_starts_in_a_row
};

/// What an ordinary user gets, too.
pub(crate) const ROOTLESS: &[Case] = cases! {
    a_dead_daemon_s_pods_are_adopted_from_another_user_namespace
    a_container_sees_what_was_asked_for_and_no_more
    the_sandbox_forbids_what_containerd_forbids
    containers_of_a_pod_share_what_a_pod_shares
    no_line_of_a_log_is_lost
    a_command_is_executed_inside
    a_command_gets_a_terminal
    signals_end_containers_and_their_children
    usage_is_measured_without_a_cgroup
    a_container_beyond_its_memory_is_oom_killed
    a_cpu_limit_holds_and_is_measured
    what_cannot_be_started_says_why
    pods_talk_to_each_other_and_the_node_to_them
    volumes_are_where_they_should_be_and_lead_nowhere_else
    a_pod_whose_shim_dies_dies_with_it
    removing_a_pod_in_the_middle_of_everything
    twenty_starts_in_a_row
};

pub(crate) fn user(uid: u32, gid: u32, supplementary_groups: &[u32]) -> User {
    User {
        uid,
        gid,
        supplementary_groups: supplementary_groups.to_vec(),
    }
}

pub(crate) fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("p50 {:.1} ms, p95 {:.1} ms", at(50), at(95))
}
