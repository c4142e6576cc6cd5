//! The address of the database, and the settings of each connection.
//!
//! Always true: no text shows a password; except in a check of the whole database, every wait for the server has a
//! bound of `limits`, on this side and, for statements, locks and idle transactions, also on the server.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqlSafeStr, SqlStr};
use tokio::time::{Instant, timeout};

use super::write_error::{may_recover, timed_out};
use crate::limits::Limits;
use crate::secret::Secret;
use crate::store::StoreError;

/// The tables are in a schema of their own, so that other programs may use the same database.
pub(super) const SCHEMA: &str = "pointsman";
/// Begins a transaction in which each statement sees what was committed before it, whatever the default of the database
/// or of the user is: one that has waited for a lock must see what was committed meanwhile.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// How much longer than `statement_timeout` this process waits: the server should time out first.
const STATEMENT_GRACE: Duration = Duration::from_secs(1);
/// The pause between attempts to connect to a server that is starting.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How to reach the database.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) options: PgConnectOptions,
    /// The address without a password, for messages.
    pub(super) shown: String,
    pub(super) connect: Duration,
    pub(super) statement: Duration,
    /// How long a process counts as alive without a heartbeat.
    pub(super) lease: Duration,
    settings: Vec<(&'static str, String)>,
}

impl Address {
    /// Parses `postgres://…`. `password` replaces one in the URL.
    pub(super) fn new(url: &Secret, password: Option<&Secret>, limits: &Limits) -> Result<Self, StoreError> {
        // The error does not quote the URL, which may contain a password.
        let options = PgConnectOptions::from_str(url.reveal())
            .map_err(|error| StoreError(format!("the store's address cannot be used: {error}")))?;
        // A pooler may refuse a parameter that it does not know, and numbers are never read as text.
        let mut options = options.disable_statement_logging().extra_float_digits(None);
        if let Some(password) = password {
            options = options.password(password.reveal());
        }
        if options.get_application_name().is_none() {
            options = options.application_name("pointsman");
        }
        let server = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let shown = format!("postgres://{}@{server}/{database}", options.get_username());
        let settings = vec![
            ("search_path", SCHEMA.to_owned()),
            ("default_transaction_isolation", "'read committed'".to_owned()),
            ("statement_timeout", limits.store_statement_ms.to_string()),
            ("lock_timeout", limits.store_lock_ms.to_string()),
            ("idle_in_transaction_session_timeout", limits.store_statement_ms.to_string()),
            ("client_min_messages", "warning".to_owned()),
        ];
        let (connect, statement) = (Limits::ms(limits.store_connect_ms), Limits::ms(limits.store_statement_ms));
        let lease = Limits::ms(limits.lease_ms);
        Ok(Self { options, shown, connect, statement: statement + STATEMENT_GRACE, lease, settings })
    }

    /// The same address, for sessions in which the server refuses to write.
    pub(super) fn read_only(&self) -> Self {
        let mut settings = self.settings.clone();
        settings.push(("default_transaction_read_only", "on".to_owned()));
        Self { settings, ..self.clone() }
    }

    /// The statements that configure a new connection.
    fn session_settings(&self) -> SqlStr {
        AssertSqlSafe(self.set("SET")).into_sql_str()
    }

    /// The statements that begin a transaction with these settings, in a session that does not keep them.
    pub(super) fn begin(&self) -> SqlStr {
        AssertSqlSafe(format!("{BEGIN}; {}", self.set("SET LOCAL"))).into_sql_str()
    }

    fn set(&self, command: &str) -> String {
        let settings = self.settings.iter().map(|(name, value)| format!("{command} {name} = {value}"));
        settings.collect::<Vec<_>>().join("; ")
    }

    /// Opens and configures a connection.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let opened = async {
            let mut conn = PgConnection::connect_with(&self.options).await?;
            conn.execute(self.session_settings()).await?;
            Ok(conn)
        };
        let timed_out = |_| Err(timed_out("the database did not accept the connection", self.connect));
        timeout(self.connect, opened).await.unwrap_or_else(timed_out)
    }

    /// Opens a connection whose session keeps no settings.
    pub(super) async fn connect_without_settings(&self) -> Result<PgConnection, sqlx::Error> {
        let timed_out = |_| Err(timed_out("the database did not accept the connection", self.connect));
        timeout(self.connect, PgConnection::connect_with(&self.options)).await.unwrap_or_else(timed_out)
    }

    /// Like [`Address::connect`], but tries again while the server may be starting, until the connect timeout has
    /// passed.
    pub(super) async fn connect_at_start(&self) -> Result<PgConnection, sqlx::Error> {
        self.retry_at_start(|| self.connect()).await
    }

    /// Repeats an attempt to connect while the server may be starting, until the connect timeout has passed.
    pub(super) async fn retry_at_start<F>(&self, connect: impl Fn() -> F) -> Result<PgConnection, sqlx::Error>
    where
        F: Future<Output = Result<PgConnection, sqlx::Error>>,
    {
        let deadline = Instant::now() + self.connect;
        loop {
            match connect().await {
                Err(error) if may_recover(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Waits for an answer within the statement timeout.
    pub(super) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let timed_out = |_| Err(timed_out("the database did not answer", self.statement));
        timeout(self.statement, answer).await.unwrap_or_else(timed_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let of = |url: &str, password: Option<&str>| {
            Address::new(&Secret::new(url), password.map(Secret::new).as_ref(), &Limits::default())
        };
        let shown = of("postgres://ada:s3cret@db.example:5433/flags", None).ok().unwrap().shown;
        assert_eq!(shown, "postgres://ada@db.example:5433/flags");
        let shown = of("postgres://ada@localhost/flags?host=/run/pg", Some("s3cret")).ok().unwrap().shown;
        assert_eq!(shown, "postgres://ada@/run/pg/flags");
        let refused = of("postgres://ada:s3cret@db:port/flags", None).err().unwrap();
        assert!(!refused.0.contains("s3cret"), "{refused}");
    }
}
