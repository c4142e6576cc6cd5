//! Idle client connections, reduced to their sockets.
//!
//! The question it answers: "what does a client cost that sends nothing?" A connection that has been idle for
//! `client_park_ms` is *parked*: its task ends, hyper's buffers are freed, and its socket leaves the runtime for a
//! separate epoll set: one for all threads, watched by the runtime that accepts connections. When the client
//! sends something, the connection gets a new task and new state of hyper (`connection`), on the thread of `workers`
//! that then has the fewest connections. Always true: a parked connection has no exchange, and no buffered byte in
//! either direction; it counts among the open connections and keeps its permit; parked ones are ordered by the time
//! since which they are idle. A connection that cannot be parked goes on as it was.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use metrics::{Gauge, gauge};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{MissedTickBehavior, interval};

use super::client_addresses::ConnectionPermit;
use super::monotonic::{NEVER, now};
use super::open_connections::{OpenConnections, OpenCount};
use super::raw_socket::{self, FirstRead};
use super::tls_stream::Session;
use super::wait::ConnectionWait;
use super::wait_limits::WaitLimits;
use crate::listener::Forwarding;

/// The most events that are taken from the system at once.
const EVENTS_MAX: usize = 64;
/// The longest pause between two searches for connections that are to be parked or closed.
const SWEEP_MAX: Duration = Duration::from_secs(1);
/// The lowest bits of a [`ParkingKey`], which distinguish connections that are idle since the same microsecond.
const COUNTER_BITS: u32 = 12;

/// What is left of a connection while it is parked.
pub(super) struct ParkedConnection {
    pub(super) socket: TcpStream,
    /// Boxed, so that a connection without TLS takes less memory.
    pub(super) tls: Option<Box<ParkedTls>>,
    pub(super) peer: IpAddr,
    /// The forwarding rules that were in force when the connection was accepted.
    pub(super) forwarding: Arc<Forwarding>,
    pub(super) permit: ConnectionPermit,
    pub(super) count: OpenCount,
}

/// What is left of a connection with TLS, beside its socket.
pub(super) struct ParkedTls {
    pub(super) session: Session,
    /// The header fields for the client's certificate.
    pub(super) identity: Vec<(HeaderName, HeaderValue)>,
}

/// Since when a connection is idle, in microseconds, and a counter in the lowest bits.
type ParkingKey = u64;

/// The parked connections.
pub(super) struct Parking {
    /// `None` if the system gave no epoll set; then nothing is parked.
    epoll: Option<OwnedFd>,
    parked: Mutex<Parked>,
    counter: AtomicU64,
    gauge: Gauge,
}

#[derive(Default)]
struct Parked {
    /// Whether a task waits for events of the epoll set.
    is_watched: bool,
    /// Whether parking is paused, because connections are told to close.
    is_paused: bool,
    /// Ordered by idle time, the longest first. Boxed: a new connection is always added at the end, which leaves nearly
    /// half of each tree node empty.
    connections: BTreeMap<ParkingKey, Box<ParkedConnection>>,
}

impl Parking {
    pub(super) fn new() -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).inspect_err(
            |error| tracing::warn!(%error, "idle connections will not be parked: the system gives no epoll set"),
        );
        let gauge = gauge!("pointsman_client_connections_parked");
        gauge.set(0.0);
        Self { epoll: epoll.ok(), parked: Mutex::default(), counter: AtomicU64::new(0), gauge }
    }

    /// Creates one that parks nothing.
    pub(super) fn off() -> Self {
        Self { epoll: None, parked: Mutex::default(), counter: AtomicU64::new(0), gauge: Gauge::noop() }
    }

    fn lock(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of parked connections.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().connections.len()
    }

    /// Returns how many times a connection was parked.
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.counter.load(Relaxed)
    }

    /// Parks a connection that has been idle since a time. Gives it back if it cannot be parked, because the process
    /// stops or hands over, or the system has no room.
    pub(super) fn park(&self, since: u64, connection: ParkedConnection) -> Result<(), ParkedConnection> {
        let Some(epoll) = &self.epoll else { return Err(connection) };
        let key = since << COUNTER_BITS | self.counter.fetch_add(1, Relaxed) & ((1 << COUNTER_BITS) - 1);
        let mut parked = self.lock();
        if !parked.is_watched || parked.is_paused || parked.connections.contains_key(&key) {
            return Err(connection);
        }
        // One-shot: an event is reported once, however late it is handled. If bytes have come meanwhile it is reported
        // at once; the thread that takes the event waits for the lock.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        if let Err(error) = epoll::add(epoll, &connection.socket, epoll::EventData::new_u64(key), flags) {
            tracing::debug!(%error, "an idle connection cannot be parked");
            return Err(connection);
        }
        parked.connections.insert(key, Box::new(connection));
        self.gauge.set(parked.connections.len() as f64);
        Ok(())
    }

    /// Takes those connections among `keys` that are still parked and fulfil a condition.
    fn take(
        &self,
        keys: impl IntoIterator<Item = ParkingKey>,
        condition: impl Fn(&ParkedConnection) -> bool,
    ) -> Vec<(ParkingKey, ParkedConnection)> {
        let Some(epoll) = &self.epoll else { return Vec::new() };
        let mut parked = self.lock();
        let mut taken = Vec::new();
        for key in keys {
            let Some(connection) = parked.connections.remove(&key) else { continue };
            if condition(&connection) {
                // Removal cannot fail: the socket is in the set.
                let _ = epoll::delete(epoll, &connection.socket);
                taken.push((key, *connection));
            } else {
                parked.connections.insert(key, connection);
            }
        }
        self.gauge.set(parked.connections.len() as f64);
        taken
    }

    /// Closes those connections among `keys` that are still parked and whose clients have sent nothing meanwhile;
    /// returns their number.
    fn close(&self, keys: impl IntoIterator<Item = ParkingKey>) -> usize {
        let taken = self.take(keys, |connection| !raw_socket::has_bytes(&connection.socket));
        let count = taken.len();
        taken.into_iter().for_each(|(_, connection)| connection.close());
        count
    }

    /// Returns the first `count_max` connections that have been idle since before a time.
    fn idle_since(&self, before: u64, count_max: usize) -> Vec<ParkingKey> {
        let parked = self.lock();
        parked.connections.keys().copied().take_while(|key| key >> COUNTER_BITS <= before).take(count_max).collect()
    }

    /// Closes the connections that have been idle longest, parked or not, `count_max` at most, and only those that have
    /// been idle since before a time.
    pub(super) fn close_idle(&self, open: &OpenConnections, count_max: usize, before: u64) {
        enum Idle {
            Served(Arc<ConnectionWait>),
            Parked(ParkingKey),
        }
        let served = open.idle_since(before).into_iter().map(|(since, wait)| (since, Idle::Served(wait)));
        let parked = self.idle_since(before, count_max);
        let parked = parked.into_iter().map(|key| (key >> COUNTER_BITS, Idle::Parked(key)));
        let mut idle: Vec<_> = served.chain(parked).collect();
        if idle.len() > count_max {
            idle.select_nth_unstable_by_key(count_max, |(since, _)| *since);
            idle.truncate(count_max);
        }
        let mut keys = Vec::new();
        for (_, connection) in idle {
            match connection {
                Idle::Served(wait) => wait.request_close(),
                Idle::Parked(key) => keys.push(key),
            }
        }
        (0..self.close(keys)).for_each(|_| open.count_idle_closed());
    }

    /// Ends parking for good, and closes what is parked. Returns the connections whose clients have sent something
    /// meanwhile, with the bytes that were read.
    pub(super) fn stop(&self) -> Vec<(ParkedConnection, Bytes)> {
        let mut parked = self.lock();
        parked.is_watched = false;
        let connections = std::mem::take(&mut parked.connections);
        self.gauge.set(0.0);
        drop(parked);
        connections.into_values().filter_map(|connection| connection.read_or_close()).collect()
    }

    /// Pauses parking until [`Parking::end_pause`], and returns all parked connections.
    pub(super) fn pause(&self) -> Vec<ParkedConnection> {
        let keys: Vec<ParkingKey> = {
            let mut parked = self.lock();
            parked.is_paused = true;
            parked.connections.keys().copied().collect()
        };
        self.take(keys, |_| true).into_iter().map(|(_, connection)| connection).collect()
    }

    /// Ends the pause of parking.
    pub(super) fn end_pause(&self) {
        self.lock().is_paused = false;
    }

    /// Parks idle connections, closes those that were idle for too long, and gives those whose clients have sent
    /// something to `resume`, with the bytes that were read. Never returns.
    pub(super) async fn run(
        &self,
        open: &OpenConnections,
        limits: &WaitLimits,
        resume: impl Fn(ParkedConnection, Bytes),
    ) {
        let Some(epoll) = self.epoll.as_ref().filter(|_| limits.park != NEVER) else { return pending().await };
        let ready = match watch(epoll) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::warn!(%error, "idle connections will not be parked: their epoll set cannot be watched");
                return pending().await;
            }
        };
        self.lock().is_watched = true;
        let mut sweep = interval(Duration::from_micros(limits.park / 2).clamp(Duration::from_millis(1), SWEEP_MAX));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                guard = ready.readable() => match guard {
                    Ok(mut guard) => if !self.take_events(epoll, &resume) {
                        guard.clear_ready();
                    }
                    Err(error) => {
                        tracing::error!(%error, "parked connections are closed: nothing watches them any more");
                        self.stop().into_iter().for_each(|(connection, read)| resume(connection, read));
                        return pending().await;
                    }
                },
                _ = sweep.tick() => {
                    let at = now();
                    open.request_parking(at.saturating_sub(limits.park));
                    self.close(self.idle_since(at.saturating_sub(limits.idle), usize::MAX));
                }
            }
        }
    }

    /// Takes events once, and resumes or closes their connections. Returns whether there were any.
    fn take_events(&self, epoll: &OwnedFd, resume: impl Fn(ParkedConnection, Bytes)) -> bool {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(epoll, spare_capacity(&mut events), Some(&at_once)) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return true,
            Err(error) => {
                tracing::error!(%error, "the epoll set of idle connections cannot be read");
                return false;
            }
        }
        let keys = events.iter().map(|event| event.data.u64());
        for (key, connection) in self.take(keys, |_| true) {
            match connection.read() {
                Ok(FirstRead::Bytes(read)) => resume(connection, read),
                // Nothing has come, although the system reported an event.
                Ok(FirstRead::Nothing) => {
                    let _ = self.park(key >> COUNTER_BITS, connection); // closed if it cannot be parked again
                }
                Ok(FirstRead::End) | Err(_) => {}
            }
        }
        true
    }
}

/// Registers the epoll set with the runtime, which then reports its events.
#[allow(unsafe_code)]
fn watch(epoll: &OwnedFd) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: the descriptor is borrowed for as long as the result exists, so it stays open and unchanged.
    Ok(unsafe { AsyncFd::register_with_interest(epoll.as_fd(), Interest::READABLE) }?)
}

impl ParkedConnection {
    /// Reads what has come, without waiting. With TLS the bytes are left in the socket.
    fn read(&self) -> io::Result<FirstRead> {
        match &self.tls {
            None => raw_socket::read_at_once(&self.socket),
            Some(_) => raw_socket::peek_at_once(&self.socket),
        }
    }

    /// Reads what has come; closes the connection if nothing has come.
    fn read_or_close(self) -> Option<(Self, Bytes)> {
        match self.read() {
            Ok(FirstRead::Bytes(read)) => Some((self, read)),
            Ok(FirstRead::Nothing | FirstRead::End) | Err(_) => {
                self.close();
                None
            }
        }
    }

    /// Closes the connection without waiting for a client that takes no bytes.
    fn close(self) {
        if let Some(mut tls) = self.tls {
            tls.session.try_send_close_notify(&self.socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box of 65 to 80 bytes takes 80 bytes of the allocator, and its entry in a half-full tree node 29 more.
    #[test]
    fn a_parked_connection_is_small() {
        assert!(size_of::<ParkedConnection>() <= 72, "{}", size_of::<ParkedConnection>());
    }
}
