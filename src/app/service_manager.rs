//! What the process tells the service manager that started it (systemd's `Type=notify`, `WatchdogSec=`): that it
//! serves, reads its files, stops, and works.
//!
//! Always true: nothing is sent unless the manager asked for it (`NOTIFY_SOCKET`, `WATCHDOG_USEC`); a notification that
//! cannot be sent is logged and changes nothing else. The watchdog hears of the process only after each of its thread
//! pools has executed a task, so that a process whose threads hang is restarted. A store or a legacy that hangs does
//! not count: a restart would not help, and routes that legacy answers would be interrupted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::task::JoinHandle;

use super::reload_requests::ReloadRequests;
use crate::admin::Reloaded;

/// How long a reading that SIGHUP asked for may take before the manager is told that the process is ready although the
/// reading goes on: new files wait for a store that does not answer, and the process serves meanwhile.
const READING_TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Tells the manager that the process serves.
pub(super) fn notify_ready(listen: &[SocketAddr], admin: SocketAddr) {
    let listen: Vec<_> = listen.iter().map(ToString::to_string).collect();
    let status = format!("serving on {}, API on {admin}", listen.join(", "));
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells the manager that the process stops. The manager's time limit for stopping (`TimeoutStopSec=`) begins with this
/// notification. So it is not sent at a hand-over, after which long replies may go on for `succession_drain_ms`.
pub(super) fn notify_stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: requests finish, then the shadow queue, then runs"),
    ]);
}

/// Requests that the files are read whenever the process receives SIGHUP, and tells the manager when that begins and
/// ends.
pub(super) async fn reload_on_hangup(mut hangups: Signal, requests: Arc<ReloadRequests>) {
    while hangups.recv().await.is_some() {
        // Newer managers (`Type=notify-reload`) want the time with it.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now, NotifyState::Status("reading the flag files")]);
        }
        let status = match tokio::time::timeout(READING_TOLD_WITHIN, requests.ask()).await {
            Ok(Ok(outcome)) => outcome_text(&outcome),
            Ok(Err(_)) => return, // the process stops
            Err(_) => "the flag files are still being put in force (`pointsman status`)",
        };
        notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }
}

fn outcome_text(outcome: &Reloaded) -> &'static str {
    match outcome {
        Reloaded::InForce { .. } => "serving; the flag files are in force",
        Reloaded::Refused(_) | Reloaded::RefusedByLadder(_) => {
            "serving; the flag files are refused, and the last good set stays in force (`pointsman status`)"
        }
        Reloaded::NotRecorded(_) | Reloaded::Waits(_) => {
            "serving; the flag files are not in force yet (`pointsman status`)"
        }
    }
}

/// Notifies the manager's watchdog, if it has one: twice within the watchdog's timeout, each time only after every
/// thread pool has executed a task. A pool that has been shut down does not count.
pub(super) fn watch_pools(pools: Vec<Handle>) -> Option<JoinHandle<()>> {
    let every = sd_notify::watchdog_enabled()? / 2;
    Some(tokio::spawn(async move {
        loop {
            // A pool that hangs keeps this task here, and the manager hears nothing.
            each_executes_a_task(&pools).await;
            notify(&[NotifyState::Watchdog]);
            tokio::time::sleep(every).await;
        }
    }))
}

async fn each_executes_a_task(pools: &[Handle]) {
    join_all(pools.iter().map(|pool| pool.spawn(std::future::ready(())))).await;
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be notified (NOTIFY_SOCKET)");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::runtime::Builder;

    use super::*;

    #[tokio::test]
    async fn a_pool_that_hangs_keeps_the_watchdog_waiting_and_one_that_was_shut_down_does_not() {
        let hanging = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let ended = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let pools = [hanging.handle().clone(), ended.handle().clone(), Handle::current()];
        ended.shutdown_background();
        let (began, has_begun) = channel();
        let (release, released) = channel::<()>();
        hanging.spawn(async move {
            began.send(()).unwrap();
            let _ = released.recv(); // blocks the only thread of the pool
        });
        has_begun.recv().unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(100), each_executes_a_task(&pools)).await;
        assert!(waited.is_err(), "the pool executes nothing");
        drop(release);
        tokio::time::timeout(Duration::from_secs(60), each_executes_a_task(&pools)).await.unwrap();
        hanging.shutdown_background();
    }
}
