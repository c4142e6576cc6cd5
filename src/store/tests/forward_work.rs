//! Macros for test stores that wrap another store and change only some of its calls.

/// Implements [`crate::store::RunCoordination`] by forwarding each call to a field, except `acquire_due_except`,
/// `give_up` and `owner`: for them the trait's own versions are used, as in a store of one process.
macro_rules! forward_work {
    ($store:ty, $field:ident) => {
        $crate::store::tests::forward_work::forward_work!(@each $store, $field,
            heartbeat(worker: $crate::names::WorkerId, name: String, alive_for: std::time::Duration) -> Option<jiff::Timestamp>;
            deregister(worker: $crate::names::WorkerId) -> ();
            acquire(worker: $crate::names::WorkerId, run: $crate::names::RunId) -> $crate::store::AcquireResult;
            acquire_due(worker: $crate::names::WorkerId, limit: usize) -> Vec<$crate::store::OwnedRun>;
            due_times(limit: usize) -> Vec<(jiff::Timestamp, $crate::names::RunId)>;
            put_command(command: $crate::store::CommandRecord) -> ();
            commands(run: $crate::names::RunId) -> Vec<$crate::store::CommandRecord>;
            command(id: uuid::Uuid) -> Option<$crate::store::CommandRecord>;
            answer_command(id: uuid::Uuid, answer: serde_json::Value) -> ();
            locks(names: Option<Vec<String>>, limit: usize) -> Vec<$crate::store::LockRow>;
            webhook_messages(after: u64, limit: usize) -> Vec<$crate::store::WebhookMessage>;
            remove_webhook_message(number: u64) -> ();
            pending_runs(limit: usize) -> Vec<$crate::store::OutboxRow>;
            remove_pending_run(run: $crate::names::RunId) -> ();
            purge(
                status: $crate::workflow::RunStatus,
                ended_before: jiff::Timestamp,
                limit: usize
            ) -> $crate::store::Purged;
            prune_retry_keys(
                after: Option<$crate::store::RetryKeyPosition>,
                limit: usize
            ) -> $crate::store::RetryKeyPage<u64>;
            long_bound_keys(
                ahead: std::time::Duration,
                after: Option<$crate::store::RetryKeyPosition>,
                limit: usize
            ) -> $crate::store::RetryKeyPage<Vec<$crate::flag::RetryKey>>;
            engine_tries_since(
                since: jiff::Timestamp,
                after: Option<$crate::store::RetryKeyPosition>,
                limit: usize
            ) -> $crate::store::RetryKeyPage<Vec<$crate::store::RetryKeyPosition>>;
            purged_run_bodies(run: $crate::names::RunId) -> Option<$crate::store::RunBodies>;
            put_run_snapshot(snapshot: $crate::store::RunSnapshot) -> ();
            run_snapshot(run: $crate::names::RunId) -> Option<$crate::store::RunSnapshot>;
            changed_runs(since: Option<$crate::store::RunCursor>, limit: usize) -> $crate::store::ChangedRuns;
        );
    };
    (@each $store:ty, $field:ident, $($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        impl $crate::store::RunCoordination for $store {
            $(fn $name(
                &self,
                $($arg: $type),*
            ) -> futures_util::future::BoxFuture<'_, Result<$result, $crate::store::StoreError>> {
                self.$field.$name($($arg),*)
            })*
            fn notifications(&self) -> tokio::sync::broadcast::Receiver<$crate::store::StoreNotification> {
                self.$field.notifications()
            }
            fn is_shared(&self) -> bool {
                self.$field.is_shared()
            }
        }
    };
}
pub(crate) use forward_work;

/// Implements [`crate::store::PinCollisionStore`] by forwarding each call to a field.
macro_rules! forward_pin_collisions {
    ($store:ty, $($field:tt).+) => {
        impl $crate::store::PinCollisionStore for $store {
            fn put_pin_collisions(
                &self,
                collisions: Vec<$crate::store::PinCollision>,
            ) -> futures_util::future::BoxFuture<'_, Result<(), $crate::store::StoreError>> {
                self.$($field).+.put_pin_collisions(collisions)
            }
            fn pin_collisions(
                &self,
            ) -> futures_util::future::BoxFuture<
                '_,
                Result<Vec<$crate::store::PinCollision>, $crate::store::StoreError>,
            > {
                self.$($field).+.pin_collisions()
            }
        }
    };
}
pub(crate) use forward_pin_collisions;
