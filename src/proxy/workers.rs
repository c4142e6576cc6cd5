//! The threads that serve client connections.
//!
//! Each thread has a runtime of its own, and a connection stays on its thread: the tasks, sockets and connections to
//! services that an exchange needs are all woken there, and no request waits for a thread to be woken. Always true: a
//! new connection, and one that was parked, goes to the thread that has the fewest connections; without threads,
//! connections are served by the runtime that accepts them. A task that computes for long delays all connections of its
//! thread: the engine, the shadow queue and the settling of copied exchanges have threads of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pool;
use crate::priority;

/// The threads that serve client connections. They end when this is dropped.
#[derive(Default)]
pub struct Workers {
    all: Vec<Worker>,
    stop: CancellationToken,
}

struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// One connection of a worker, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Workers {
    /// Starts this many threads.
    ///
    /// # Errors
    /// A runtime or its thread cannot be made.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let mut workers = Self::default();
        for _ in 0..threads {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, stop) = (runtime.handle().clone(), workers.stop.clone());
            std::thread::Builder::new().name("proxy".into()).spawn(move || {
                pool::keep_connections_on_this_thread();
                priority::request_short_time_slices();
                runtime.block_on(stop.cancelled());
            })?;
            workers.all.push(Worker { runtime: handle, connections: Arc::default() });
        }
        Ok(workers)
    }

    /// Returns the runtimes of the threads.
    pub fn runtimes(&self) -> Vec<Handle> {
        self.all.iter().map(|worker| worker.runtime.clone()).collect()
    }

    /// Serves a connection on the thread that has the fewest connections, or on the calling runtime if there are no
    /// threads. `served` itself must create everything that belongs to a runtime, such as a socket.
    pub(super) fn spawn(&self, tasks: &TaskTracker, served: impl Future<Output = ()> + Send + 'static) {
        let Some(worker) = self.all.iter().min_by_key(|worker| worker.connections.load(Relaxed)) else {
            tasks.spawn(served);
            return;
        };
        worker.connections.fetch_add(1, Relaxed);
        let counted = Counted(worker.connections.clone());
        let served = async move {
            let _counted = counted;
            served.await;
        };
        tasks.spawn_on(served, &worker.runtime);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use tokio::sync::{mpsc, watch};

    use super::super::tests::wire::bounded;
    use super::*;

    #[tokio::test]
    async fn connections_are_shared_out_evenly_and_stay_on_their_threads() {
        let (workers, tasks) = (Workers::start(2).unwrap(), TaskTracker::new());
        let (served, mut threads) = mpsc::channel(4);
        let (end, ended) = watch::channel(false);
        for _ in 0..4 {
            let (served, mut ended) = (served.clone(), ended.clone());
            workers.spawn(&tasks, async move {
                served.send(thread::current().id()).await.unwrap();
                ended.wait_for(|ended| *ended).await.unwrap();
            });
        }
        let mut of_thread = HashMap::new();
        for _ in 0..4 {
            *of_thread.entry(bounded("a connection", threads.recv()).await.unwrap()).or_insert(0) += 1;
        }
        assert!(!of_thread.contains_key(&thread::current().id()), "on threads of their own");
        assert_eq!(of_thread.into_values().collect::<Vec<_>>(), [2, 2]);
        end.send(true).unwrap();
        tasks.close();
        bounded("the end of the connections", tasks.wait()).await;
        assert!(workers.all.iter().all(|worker| worker.connections.load(Relaxed) == 0), "none is counted any more");
    }
}
