//! Ctrl-C and SIGTERM: once to finish what runs and stop, twice to stop now.

use tokio::signal;

use crate::engine::executor::Stop;
use crate::ui::Out;

/// Listens until the process ends; must be called within the runtime.
pub(super) fn listen(out: &Out) -> Stop {
    let stop = Stop::default();
    let (soon, now, out) = (stop.soon.clone(), stop.now.clone(), out.clone());
    tokio::spawn(async move {
        interrupted().await;
        soon.cancel();
        if !out.quiet {
            out.error("stopping after what runs now; once more to stop at once");
        }
        interrupted().await;
        now.cancel();
    });
    stop
}

/// Ctrl-C as the way to end something that goes on until then.
#[cfg(unix)]
pub(super) async fn interrupted() {
    let terminate = signal::unix::signal(signal::unix::SignalKind::terminate());
    match terminate {
        Ok(mut terminate) => tokio::select! {
            _ = signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(signal::ctrl_c().await),
    }
}

/// Ctrl-C as the way to end something that goes on until then.
#[cfg(not(unix))]
pub(super) async fn interrupted() {
    drop(signal::ctrl_c().await);
}
