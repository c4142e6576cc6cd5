//! The constructors of [`PostgresStore`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::commit::Committer;
use super::first_tries::FirstTries;
use super::lease_term::LeaseTerm;
use super::notifier::Notifier;
use super::pool::Pool;
use super::session::Session;
use super::writer::{Writer, WriterQueues};
use super::{PostgresStore, check, open, pooler};
use crate::limits::Limits;
use crate::secret::Secret;
use crate::store::codec::INLINE_BYTES_MIN;
use crate::store::commit_age::CommitAge;
use crate::store::unpurgeable::Unpurgeable;
use crate::store::{StoreChecked, StoreError};

/// The connection for leases: one statement of it is under way at a time.
const LEASE_CONNECTIONS: u32 = 1;

impl PostgresStore {
    /// Opens a database by its URL, creates or upgrades its tables, and starts its writer on the current runtime.
    /// Registers metrics, so the recorder must be installed before.
    ///
    /// # Errors
    /// The database cannot be reached, refuses the login, is too old, is a standby or read-only, belongs to another
    /// program, was written by a newer version, or has tables that older processes still use; or the URL is that of a
    /// pooler in transaction mode. The text says which and what to do, and contains no password.
    pub async fn open(url: &Secret, password: Option<&Secret>, limits: &Limits) -> Result<Self, StoreError> {
        let address = Address::new(url, password, limits)?;
        let opened = open::open(&address).await?;
        let pool = Pool::new(address.clone(), limits);
        Ok(Self::start(address, opened, pool, limits))
    }

    /// Like [`PostgresStore::open`], with a pooler in transaction mode before the database at `direct`: reads and
    /// idempotent writes go through the pooler. What needs a session of its own goes to `direct`: notifications, the
    /// writer, leases, and the upgrade of tables.
    ///
    /// # Errors
    /// As [`PostgresStore::open`]; or the pooler cannot be reached, or leads to another database or to a standby.
    pub async fn open_behind_pooler(
        pooler: &Secret,
        direct: &Secret,
        password: Option<&Secret>,
        limits: &Limits,
    ) -> Result<Self, StoreError> {
        let (through, address) = (Address::new(pooler, password, limits)?, Address::new(direct, password, limits)?);
        let opened = open::open(&address).await?;
        pooler::check(&through, &address, (&opened.secret, &opened.identity)).await?;
        Ok(Self::start(address, opened, Pool::behind_pooler(through, limits), limits))
    }

    fn start(address: Address, opened: open::Opened, pool: Pool, limits: &Limits) -> Self {
        let (store, writer) = Self::assemble(address.clone(), opened, pool, limits);
        tokio::spawn(writer.run());
        tokio::spawn(store.notifier.clone().listen(address, store.stop_listening.clone()));
        store
    }

    /// Opens an existing database for reading: nothing in it is changed, and writes are refused.
    ///
    /// # Errors
    /// The database cannot be reached or refuses the login; the tables do not exist or have another version; or this
    /// binary cannot read the events in them.
    pub async fn open_for_reading(
        url: &Secret,
        password: Option<&Secret>,
        limits: &Limits,
    ) -> Result<Self, StoreError> {
        let address = Address::new(url, password, limits)?.read_only();
        let opened = open::open_for_reading(&address).await?;
        let pool = Pool::new(address.clone(), limits);
        // Without the writer its queues are closed, so that every append is refused.
        let (store, _) = Self::assemble(address, opened, pool, limits);
        store.healthy.store(false, Ordering::Release);
        Ok(store)
    }

    /// The store and its writer, neither of which has used the database yet.
    fn assemble(address: Address, opened: open::Opened, pool: Pool, limits: &Limits) -> (Self, Writer) {
        let open::Opened { secret, default_retention, is_new, identity } = opened;
        let retry_window_ns = retry_window_ns(limits);
        let healthy = Arc::new(AtomicBool::new(true));
        let notifier = Notifier::new();
        let lease_term = Arc::new(LeaseTerm::default());
        let session = Session::new(address.clone());
        let committer = Committer::new(session, notifier.clone(), retry_window_ns, lease_term.clone());
        let write_failure = committer.write_failure.clone();
        let commit_age = Arc::new(CommitAge::new(limits));
        let (writer, queues): (Writer, WriterQueues) =
            Writer::new(committer, healthy.clone(), commit_age.clone(), limits);
        let inline_bytes_max = usize::try_from(limits.payload_inline_bytes_max).unwrap_or(usize::MAX);
        let pool = Arc::new(pool);
        let store = Self {
            queues,
            first_tries: FirstTries::new(&pool, retry_window_ns),
            pool,
            leases: Pool::with_connections(address, LEASE_CONNECTIONS),
            lease_term,
            notifier,
            healthy,
            write_failure,
            commit_age,
            secret,
            default_retention,
            is_new,
            identity,
            retry_window_ns,
            queue_max: limits.append_queue_max,
            inline_bytes_max: inline_bytes_max.max(INLINE_BYTES_MIN),
            duration: metrics::histogram!("pointsman_append_duration_seconds"),
            unpurgeable: Unpurgeable::default(),
            stop_listening: CancellationToken::new(),
        };
        (store, writer)
    }

    /// Checks a whole database and changes nothing; other processes may be using it. A claim of a retry key that is
    /// older than the retry window is no finding if its run is missing, because that run may have been purged. Also
    /// returns the database's address without a password.
    ///
    /// # Errors
    /// The database cannot be reached, or this binary cannot read its tables. Inconsistencies are findings, not errors.
    pub async fn check(
        url: &Secret,
        password: Option<&Secret>,
        limits: &Limits,
    ) -> Result<(StoreChecked, String), StoreError> {
        let address = Address::new(url, password, limits)?;
        Ok((check::check(&address, retry_window_ns(limits)).await?, address.shown))
    }

    /// Creates the tables of an older version.
    #[cfg(test)]
    pub(in crate::store) async fn create_older_tables(url: &Secret, version: i64) {
        open::create_older_tables(&Address::new(url, None, &Limits::default()).unwrap(), version).await.unwrap();
    }
}

fn retry_window_ns(limits: &Limits) -> i64 {
    i64::try_from(limits.retry_window_s.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX)
}
