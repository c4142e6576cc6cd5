//! The bounds of the process, in one place. The name of a bound says its unit. (A bound that matters to one file only
//! may be a constant there.)
//!
//! Each field of [`Limits`] may be set under `limits:` in `pointsman.yaml`; the constants are fixed. When a bound is
//! reached, the error names it and it is counted.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The size of one flag file. The bounds on flag files are constants, because they apply before a file is read.
pub const FLAG_FILE_BYTES_MAX: u64 = 1 << 20;
/// Flag files of one set.
pub const FLAG_FILES_MAX: usize = 2_000;
/// Nesting of a flag file.
pub const FLAG_FILE_DEPTH_MAX: usize = 64;
/// Values and keys in one flag file; an alias counts as often as it is used.
pub const FLAG_FILE_VALUES_MAX: usize = 100_000;
/// The text of all values and keys in one flag file; an alias counts as often as it is used.
pub const FLAG_FILE_TEXT_BYTES_MAX: usize = 4 << 20;
/// The size of one file of certificates, or of a key.
pub const CERTIFICATE_FILE_BYTES_MAX: u64 = 1 << 20;
/// The requests, or compared pairs, of which a guard counts the bad ones (`guard.over`).
pub const GUARD_WINDOW_REQUESTS_MAX: u64 = 10_000;
/// Earlier ids of one route (`was`) in its file.
pub const EARLIER_IDS_MAX: usize = 16;
/// Earlier ids of one route that the store keeps, listed in its file or not; instances are looked for under each.
pub const EARLIER_IDS_KEPT_MAX: usize = 64;
/// Earlier scopes of one route's retry keys (`caller`, `retry_key`) under which first tries are looked up.
pub const EARLIER_SCOPES_MAX: usize = 8;
/// Earlier `match`es of one route, each with the scope that its retry keys had. The requests that they matched may
/// belong to another route now; a retry is looked up under these scopes there too.
pub const REASSIGNED_MATCHES_MAX: usize = 32;
/// Reasons under `force` of one route's cohorts that are no longer in its files. They are remembered, so that a reason
/// that returns does not count as new.
pub const COHORT_REASONS_MAX: usize = 32;

/// Open runs that `check --against-open-runs` checks, newest first.
pub const CHECKED_RUNS_MAX: usize = 10_000;
/// Events of one run that `check --against-open-runs` reads; a longer run is listed but not checked.
pub const CHECKED_RUN_EVENTS_MAX: u64 = 100_000;
/// Runs that `check --against-open-runs` lists; further runs are only counted.
pub const CHECKED_RUNS_SHOWN_MAX: usize = 1_000;
/// How long `check --against-open-runs` may take to check runs.
pub const CHECKED_RUNS_TIME_MAX: Duration = Duration::from_secs(300);

/// Listeners of the proxy.
pub const LISTENERS_MAX: usize = 64;
/// Networks under `egress.allow`.
pub const EGRESS_NETWORKS_MAX: usize = 256;
/// Destinations under `egress.to`; each has its own connections and metrics.
pub const EGRESS_DESTINATIONS_MAX: usize = 256;
/// Calls made by legacy that are kept for one request; further calls are only counted, and the request's effects are
/// then not judged.
pub const EGRESS_CALLS_PER_REQUEST_MAX: usize = 256;
/// The body of a call or a request that is read for the value by which calls are attributed (`egress.correlate`);
/// larger bodies are not read.
pub const EGRESS_VALUE_BODY_BYTES_MAX: usize = 256 << 10;
/// Calls by legacy that have begun and are not attributed yet, each listed with the facts by which it will be
/// attributed. While there are more, the effects of no request are judged.
pub const EGRESS_OPEN_CALLS_MAX: usize = 32 << 10;
/// How much of the reason for `unresolved_effect` is kept in the evidence.
pub const UNRESOLVED_TEXT_BYTES_MAX: usize = 400;
/// Requests of one instance that wait for their turn on its twin; further ones are not compared.
pub const INSTANCE_REQUESTS_WAITING_MAX: usize = 256;
/// Instances that are marked in memory as having an incomplete twin; the store has these marks too.
pub const MARKED_TWINS_MAX: usize = 65_536;
/// How many of the last calls that were attributed to no request `pointsman egress` shows.
pub const EGRESS_LISTED_CALLS_MAX: usize = 20;
/// Targets of writing calls of no known request that are listed one by one; of further ones only the last time is kept.
pub const EGRESS_UNATTRIBUTED_WRITES_MAX: usize = 256;
/// The URL of such a call; longer ones are cut off.
pub const EGRESS_LISTED_URL_BYTES_MAX: usize = 512;
/// Pages of the list by which legacy says which instances it still has (`alive:`).
pub const ALIVE_PAGES_MAX: usize = 100;
/// The value of one header field that tells who a client is by its certificate.
pub const IDENTITY_BYTES_MAX: usize = 8 << 10;
/// TLS sessions that each listener keeps in memory, so that clients without session tickets can resume them.
pub const TLS_SESSIONS_MAX: usize = 1_024;
/// The header of the PROXY protocol, version 2; one of version 1 has at most 107 bytes.
pub const PROXY_HEADER_BYTES_MAX: usize = 4_096;
/// Requests in flight on one HTTP/2 connection to a service. Beyond this, another connection costs less than waiting.
pub const SERVICE_HTTP2_STREAMS_MAX: usize = 100;
/// HTTP/2 connections to one address of a service: when full, they carry more than `client_connections_max` requests.
pub const SERVICE_HTTP2_CONNECTIONS_MAX: usize = 128;
/// How much a service may send on one stream before it is read. The window of the connection is as large as those of
/// all its streams together, so that a client that does not read delays no other client.
pub const SERVICE_HTTP2_WINDOW_BYTES: u32 = 128 << 10;
/// How much of a request's body is kept over HTTP/2, to send it again if the service has not processed it.
pub const KEPT_BODY_BYTES_MAX: usize = 64 << 10;
/// The largest body of a request to the engine that is parsed by the thread that serves the client. Larger bodies are
/// parsed by the engine's threads, so that the client thread's other connections do not wait.
pub const PARSED_BY_CALLER_BYTES_MAX: usize = 64 << 10;
/// The smallest answer of the engine that is compressed (`compress`); for smaller ones little would be saved.
pub const COMPRESSED_BYTES_MIN: usize = 256;
/// Interim replies (1xx) of legacy that wait until the client of one exchange gets them; further ones are dropped.
pub const INTERIM_REPLIES_MAX: usize = 8;
/// Bytes of an answer of Pointsman's own that are handed to a client's connection at a time.
pub const REPLY_PIECE_BYTES_MAX: usize = 64 << 10;
/// How many times one request is sent, if the service refuses it unprocessed each time: it may be overloaded.
pub const NOT_PROCESSED_MAX: usize = 3;
/// How many times one request is sent, if its connection ends each time before the request was processed. High, because
/// many requests may meet on connections of a service that takes only a few requests on each.
pub const CONNECTION_ENDED_MAX: usize = 16;
/// The payload of one frame from an HTTP/2 client: the protocol's least, so that no frame delays others for long.
pub const HTTP2_FRAME_BYTES_MAX: u32 = 16 << 10;
/// Streams of one HTTP/2 connection that its client may reset before they are accepted; with more, it is closed.
pub const HTTP2_PENDING_RESETS_MAX: usize = 50;
/// Streams of one HTTP/2 connection that may be reset for the client's errors; with more, the connection is closed.
pub const HTTP2_LOCAL_RESETS_MAX: usize = 200;
/// Streams reset by Pointsman that are remembered for a second, because frames of the client may still be on their way.
pub const HTTP2_KEPT_RESETS_MAX: usize = 50;
/// The largest window that HTTP/2 allows.
pub const HTTP2_WINDOW_LIMIT_BYTES_MAX: u64 = (1 << 31) - 1;
/// A message between a process and its successor; it contains the matches of all routes with a workflow.
pub const SUCCESSION_MESSAGE_BYTES_MAX: u32 = 16 << 20;
/// Sockets that a service manager may pass to a process.
pub const ACTIVATED_SOCKETS_MAX: usize = 256;

/// The largest value of a limit that is a time: ten years. Times of this size can be added without overflow.
pub const TIME_LIMIT_MAX: Duration = Duration::from_secs(3_653 * 86_400);
/// The largest value of a limit that is a size, unless a smaller one is given above or below: 1 TiB.
pub const BYTES_LIMIT_MAX: u64 = 1 << 40;
/// The largest value of `buffer_request`: 64 MiB.
pub const BUFFER_REQUEST_BYTES_LIMIT_MAX: u64 = 64 << 20;
/// The largest value of a limit that is a number of things, unless a smaller one is given below.
pub const NUMBER_LIMIT_MAX: u64 = u32::MAX as u64;
/// The largest value of `head_fields_max` and `reply_fields_max`: the reader of each head allocates room for this many
/// fields at once.
pub const HEAD_FIELDS_LIMIT_MAX: u64 = 4_096;
/// The largest value of `shadow_threads`; all of these threads are started with the process.
pub const SHADOW_THREADS_LIMIT_MAX: u64 = 1_024;
/// The largest value of `access_log_lines_max`: the queue allocates room for this many lines at the start.
pub const ACCESS_LOG_LINES_LIMIT_MAX: u64 = 1 << 20;
/// Each text of a client in a line of the access log: target, user agent, referer, `x-forwarded-for`. `...` replaces
/// what is beyond.
pub const ACCESS_LOG_TEXT_BYTES_MAX: usize = 2 << 10;
/// Spans in one request to the collector.
pub const SPANS_BATCH_MAX: usize = 512;
/// Each text in an attribute of a span; longer ones are cut off.
pub const SPAN_TEXT_BYTES_MAX: usize = 256;
/// How many times sending a batch of spans is tried before the batch is dropped.
pub const SPANS_TRIES_MAX: u32 = 5;
/// How long the collector may take for one request.
pub const SPANS_ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest pause before a batch of spans is sent again, whatever the collector's `Retry-After` says.
pub const SPANS_RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
/// At the end of the process: how long sending the last spans may take.
pub const LAST_SPANS_WAIT_MAX: Duration = Duration::from_secs(2);
/// The largest value of `retry_keys_file_bytes_max`: 1 GiB, which is allocated on the disk when the process starts.
pub const RETRY_KEYS_FILE_LIMIT_BYTES_MAX: u64 = 1 << 30;

/// The bounds in force.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    // proxy
    /// The body of a request or reply that is kept for the other arm; exchanges with larger bodies are not compared.
    pub body_capture_bytes_max: u64,
    /// The body of a request that the engine answers, read whole; requests with larger ones fall back or get 413.
    pub body_engine_bytes_max: u64,
    /// The size of the head of a request or a reply.
    pub head_bytes_max: u64,
    /// Header fields of one request; 4,096 at most.
    pub head_fields_max: u64,
    /// Header fields of one reply of a service over HTTP/1.1; 4,096 at most. A reply with more fails.
    pub reply_fields_max: u64,
    /// Open client connections. When a new one finds no room, those that have been idle longest are closed, up to 32 at
    /// once; if none is idle, the new one waits.
    pub client_connections_max: u64,
    /// Open connections of one client address, or of one IPv6 network of 64 bits; further ones are closed at once.
    /// Peers whose `X-Forwarded-For` is trusted (`trust_forwarded`) may have any number. 0: no limit for anybody.
    pub client_connections_per_address_max: u64,
    /// Open connections of legacy to the egress listener (`egress`). When a new one finds no room, those that have been
    /// idle longest are closed, up to 32 at once; if none is idle, the new one waits.
    pub egress_connections_max: u64,
    /// Requests in flight in the whole process; further ones get 503. A request is in flight until its client has the
    /// whole answer, a WebSocket until it ends. 0: any number.
    pub requests_in_flight_max: u64,
    /// Requests that wait until they may be sent to legacy (`requests_max`), for one service, and for one route.
    pub legacy_waiting_max: u64,
    /// How long a request waits until it may be sent to legacy (`requests_max`) before it is refused.
    pub legacy_turn_ms: u64,
    /// Idle connections kept to one service.
    pub service_idle_connections_max: u64,
    /// How long an idle connection to a service is kept.
    pub service_idle_ms: u64,
    /// How long a connection to a service is used (up to a tenth less); a new one replaces it. 0: as long as it lasts.
    pub service_connection_age_ms: u64,
    /// How often the addresses of services' names are looked up, for forwarded requests and calls of steps.
    pub service_resolve_ms: u64,
    /// A call that must not be repeated is not sent over a connection that was idle for longer than this. 0: each such
    /// call opens a new connection.
    pub service_unrepeatable_idle_ms: u64,
    /// How long the PROXY header of a new connection may take to arrive, if the listener expects one.
    pub proxy_header_ms: u64,
    /// How long the TLS handshake of a new connection may take.
    pub tls_handshake_ms: u64,
    /// How long a client may take to send the head of a request.
    pub head_read_ms: u64,
    /// A connection without a request is closed after this time.
    pub client_idle_ms: u64,
    /// A connection that has had no request for this time is not closed yet, but keeps only its socket until its client
    /// sends something: it then takes a few hundred bytes instead of 20 KiB. Not for HTTP/2. 0: never.
    pub client_park_ms: u64,
    /// Requests in flight on one HTTP/2 connection of a client; a client that begins more gets REFUSED_STREAM.
    pub client_http2_streams_max: u64,
    /// How much of the body of one request a client may send over HTTP/2 before it is read (the window of a stream).
    /// 2,147,483,647 at most.
    pub client_http2_stream_window_bytes_max: u64,
    /// How much of the bodies of all requests of one HTTP/2 connection a client may send before they are read (the
    /// window of the connection). 2,147,483,647 at most.
    pub client_http2_window_bytes_max: u64,
    /// The part of one answer over HTTP/2 that waits for room in the client's socket; 2,147,483,647 at most.
    pub client_http2_send_buffer_bytes_max: u64,
    /// Requests over HTTP/2 that a client may reset in ten seconds on one connection, beyond as many as were answered;
    /// with more, the connection is closed (ENHANCE_YOUR_CALM).
    pub client_http2_resets_max: u64,
    /// Frames that carry no part of a request (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA) that a client may
    /// send in ten seconds on one HTTP/2 connection, beyond three for each frame of a head or body in either direction;
    /// with more, the connection is closed.
    pub client_http2_control_frames_max: u64,
    /// A client that closed its sending side counts as gone if nothing could be sent to it for this time.
    pub client_half_close_ms: u64,
    /// After an early answer: how long further bytes of the client are read and discarded before the connection is
    /// closed, so that no TCP reset destroys the answer.
    pub linger_ms: u64,
    /// How long connecting to a service may take.
    pub connect_ms: u64,
    /// How long legacy may take from the request's last byte to the reply's first byte.
    pub first_byte_ms: u64,
    /// The longest pause within a body, in either direction.
    pub body_idle_ms: u64,
    /// Bytes per second that a client has to send of a request's body, measured only while Pointsman waits for the
    /// client and for nothing else; a slower client gets 408. Not for gRPC. 0: no minimum.
    pub client_send_bytes_per_s_min: u64,
    /// Bytes per second that a client has to read of an answer, measured only while its socket, or its window of
    /// HTTP/2, is full; a slower client is cut off. What the socket's buffer or the window holds counts as read.
    /// 0: no minimum.
    pub client_read_bytes_per_s_min: u64,
    /// Bytes per second that legacy, or a service whose reply a step streams, has to send of a reply's body, measured
    /// only while Pointsman waits for the service and for nothing else; a slower reply is cut off. Not for answers of
    /// the type `text/event-stream` or of gRPC. 0: no minimum.
    pub legacy_send_bytes_per_s_min: u64,
    /// The time over which the rates of `client_send_bytes_per_s_min`, `client_read_bytes_per_s_min` and
    /// `legacy_send_bytes_per_s_min` are measured.
    pub rate_window_ms: u64,
    /// How long one exchange may take in all. 0: no limit (uploads, server-sent events).
    pub total_ms: u64,
    /// Bytes of request bodies that are buffered at the same time (`buffer_request`); a body that finds no room is
    /// forwarded while it arrives.
    pub request_buffers_bytes_max: u64,
    /// After SIGTERM: how long the process still listens while `/readyz` says that it is not ready, so that load
    /// balancers remove it first.
    pub stop_delay_ms: u64,
    /// After SIGTERM: how long requests may take to finish.
    pub drain_ms: u64,
    /// After SIGTERM, and while a successor accepts: how long the rest of a head that has begun to arrive may take,
    /// counted from when idle clients are told to close (at a hand-over, after `succession_idle_ms`); then the client
    /// gets 408, and its connection closes.
    pub drain_head_ms: u64,
    /// In a process that takes over from another one: requests of routes with a workflow that wait until the process
    /// has the store; further ones get 503.
    pub succession_waiting_max: u64,
    /// How long a request waits for the store of the process that is taken over from (`succession_waiting_max`) before
    /// it gets 503.
    pub succession_wait_ms: u64,
    /// In a process that hands over: how long an idle client may send one more request before its connection closes.
    pub succession_idle_ms: u64,
    /// In a process that has handed over: how long WebSockets, long replies and other open exchanges may go on before
    /// they are cut off.
    pub succession_drain_ms: u64,
    /// Lines of the access log that wait to be written; further ones are dropped and counted. 1,048,576 at most.
    pub access_log_lines_max: u64,
    /// Spans that wait to be sent to the collector (`traces:`); further ones are dropped and counted.
    pub spans_waiting_max: u64,

    // shadow
    /// Answered requests that wait to be compared, in the shadow queue; of one route at most three quarters.
    pub shadow_queue_entries_max: u64,
    /// Bytes of the answered requests in the shadow queue; of one route at most three quarters.
    pub shadow_queue_bytes_max: u64,
    /// Runs of the shadow executor at the same time, rehearsed or dark; of one route at most three quarters.
    pub shadow_in_flight_max: u64,
    /// Threads of the shadow executor; 1,024 at most.
    pub shadow_threads: u64,
    /// How long the shadow executor waits for a run, rehearsed or dark.
    pub shadow_run_ms: u64,
    /// After SIGTERM: how long the shadow queue may take to drain.
    pub shadow_drain_ms: u64,
    /// The share of a service's concurrency and rate that rehearsed and dark runs may take, in percent. In addition to
    /// the runs that `runs_in_flight_max` allows, there may be dark runs up to this share of it.
    pub shadow_service_share_percent: u64,

    // egress
    /// Requests to which legacy's calls can be attributed: those that legacy handles, and those that ended within
    /// `egress.window`. If there are more, requests are left out and counted, the oldest ended ones first.
    pub egress_requests_max: u64,
    /// The same for requests that are not compared: known, so that their calls are not attributed to compared ones.
    #[serde(alias = "egress_bystanders_max")] // the earlier name
    pub egress_uncompared_requests_max: u64,
    /// Bytes of legacy's calls that are kept until they are compared, and of the bodies of ended requests whose value
    /// has not been read yet (`egress.correlate`).
    pub egress_bytes_max: u64,
    /// Bytes of pairs that were run and wait until all calls by legacy for them are known (`egress.window`); further
    /// ones are not compared, and count as `effects_queue_full`.
    pub egress_waiting_bytes_max: u64,
    /// How long after legacy's reply a run waits for calls by legacy from which its steps take their outputs
    /// (`rehearse: legacy`), if they are not known yet; at most `egress.window`. What is missing then stays missing.
    pub egress_rehearse_wait_ms: u64,
    /// Requests that wait for the twin of their instance, or for an earlier request of it.
    pub followups_held_max: u64,
    /// Bytes of these requests and their replies.
    pub followups_held_bytes_max: u64,
    /// How long such a request waits.
    pub followup_window_ms: u64,

    // compare
    /// How long one pair may take: four fifths are for the comparison, the rest for redacting what is kept of the pair.
    pub compare_ms: u64,
    /// A body larger than this is not compared: the pair counts as skipped (`body_too_large`).
    pub compare_bytes_max: u64,
    /// The nesting of a compared body.
    pub compare_depth_max: u64,
    /// Differences listed for one comparison. If there are more, the comparison is marked as truncated.
    pub compare_differences_max: u64,
    /// Calls that legacy made, and calls that the engine would make, that are compared for one request. If there are
    /// more, the request counts as skipped (`over_budget`).
    pub compare_effects_max: u64,

    // evidence
    /// Samples kept for one route and fingerprint.
    pub samples_per_fingerprint_max: u64,
    /// Fingerprints kept for one route.
    pub fingerprints_per_route_max: u64,
    /// The size of what is shown of one sample. The pair that is kept with it, to be judged again under other rules,
    /// may take this size once more.
    pub sample_bytes_max: u64,

    // engine
    /// Items of one `for_each`.
    pub items_max: u64,
    /// Steps of one workflow.
    pub steps_max: u64,
    /// Calls of one run in flight.
    pub run_calls_max: u64,
    /// Calls to one service in flight, of all runs together.
    pub service_calls_max: u64,
    /// Runs in flight; further ones are refused with 503.
    pub runs_in_flight_max: u64,
    /// How deep runs may be nested: a run that starts a run, and so on.
    pub run_depth_max: u64,
    /// On a store that several processes share: a process without a heartbeat for this long counts as dead, and other
    /// processes take over its runs.
    pub lease_ms: u64,
    /// On a store that several processes share: how often each process looks for due runs without an owner.
    pub sweep_ms: u64,
    /// How often every unfinished run is checked for whether something will resume it.
    pub watchdog_ms: u64,
    /// How long the sender of a command, an answer or a signal to a run waits until it is carried out and on disk; and
    /// how long the sender of a start waits until the run is on disk.
    #[serde(alias = "order_wait_ms")] // the earlier name
    pub command_wait_ms: u64,
    /// How many times a webhook may refuse a message (4xx) before the message is dropped.
    pub notice_attempts_max: u64,
    /// Messages that wait for one webhook; if there are more, the oldest are dropped.
    pub notices_waiting_max: u64,
    /// The age in seconds at which a message to a webhook is dropped.
    pub notice_age_s: u64,
    /// The size of a step's output.
    pub output_bytes_max: u64,
    /// Signals that one run has received and that no step has taken; further ones are refused.
    pub signals_max: u64,
    /// The nesting of a step's output and of a request's body; 100 at most.
    pub output_depth_max: u64,
    /// Values in a step's output and in a request's body, including those within lists and maps and the fields of a
    /// form; each value takes many times the memory of its bytes.
    pub output_values_max: u64,
    /// How long one call of a step may take, if the step gives no `timeout`.
    pub step_timeout_ms: u64,
    /// How long the engine's answer may take, if the route gives no `deadline`.
    pub answer_ms: u64,

    // expression
    /// The source of one expression.
    pub expression_bytes_max: u64,
    /// The nesting of an expression.
    pub expression_depth_max: u64,

    // store
    /// Events of real runs in one commit, including runs that the API started.
    pub append_batch_events_max: u64,
    /// Appends that wait for the writer.
    pub append_queue_max: u64,
    /// Events of dark runs in one commit.
    pub append_dark_batch_events_max: u64,
    /// The size of an event up to which it is stored whole. The large parts of a larger event are stored apart from it,
    /// once each, under their hash.
    pub payload_inline_bytes_max: u64,
    /// After how many events a run gets another snapshot. Loading the run then reads only the events after it.
    pub run_snapshot_every_events: u64,
    /// The size of a run's snapshot. A larger one is not stored, and all events of the run are read. 0: no snapshots.
    pub run_snapshot_bytes_max: u64,
    /// The shortest time between two snapshots of one run.
    pub run_snapshot_pause_ms: u64,
    /// Runs that wait for a snapshot. A run that finds no room gets none until it has more events.
    pub run_snapshots_waiting_max: u64,
    /// For how many seconds a client's retry stays on its arm.
    pub retry_window_s: u64,
    /// Retry keys of each arm kept in memory, so that the store need not be asked for them.
    pub retry_keys_max: u64,
    /// Marks in memory. For `retry_window_s` after a route's `caller` or `retry_key` changed, each new request leaves a
    /// mark: the key that it would have had before the change. By this mark a first try that began before the change,
    /// and is still in flight, finds that its retry was taken. Beyond this number all marks are dropped: keyed requests
    /// that began before the change get 503, and neither arm begins them.
    pub retry_key_marks_max: u64,
    /// The set in memory of the retry keys that the engine took within the window, about 2 bytes each. When the set is
    /// full, every request with a retry key asks the store.
    pub engine_keys_set_bytes_max: u64,
    /// The set in memory of all instances that the engine created and owns, about 2 bytes each; a second set of this
    /// size holds legacy's instances of which the engine has a twin. When a set is full, every follow-up of a family
    /// with such instances asks the store.
    pub pins_set_bytes_max: u64,
    /// The retry-key file, which holds the keys of requests that legacy took until the store has them. The file has
    /// this size from the start; 1 GiB at most.
    pub retry_keys_file_bytes_max: u64,
    /// How long a flip up, a requested reload, or the end of a freeze waits for the store before its outcome is
    /// reported as not known yet. A flip down and a freeze are in force at once, and are answered within about a
    /// second.
    pub move_answer_ms: u64,
    /// How long a commit may be under way before it counts as stalled: then the process is not ready, `live` falls
    /// back, and no run is begun until the commit has ended.
    pub store_stall_ms: u64,
    /// PostgreSQL: how long connecting may take.
    pub store_connect_ms: u64,
    /// PostgreSQL: how long one statement and its commit may take.
    pub store_statement_ms: u64,
    /// PostgreSQL: how long to wait for a lock that another process holds.
    pub store_lock_ms: u64,
    /// PostgreSQL: connections beside those for writer, notifications and lease; shadow runs use at most half of them.
    pub store_connections_max: u64,

    // admin
    /// Open connections on each listener of the API.
    pub api_connections_max: u64,
    /// The body of a request to the API.
    pub api_body_bytes_max: u64,
    /// Rows of one listing.
    pub api_rows_max: u64,
    /// How long a start waits for its run before it is answered with 202.
    pub api_wait_ms: u64,
    /// Events that are kept in memory for starts that wait for their run, of all runs together, as JSON; responses are
    /// made from them. Events that find no room are read from the store.
    pub api_start_events_bytes_max: u64,
    /// Event streams that are open at the same time.
    pub api_streams_max: u64,
    /// How often a heartbeat is sent on an event stream without events.
    pub api_heartbeat_ms: u64,
}

impl Limits {
    /// The number that hyper's client is told for `reply_fields_max`. `None` for 100, its default: hyper then needs no
    /// allocation for the fields.
    pub fn reply_fields_max_for_hyper(&self) -> Option<usize> {
        (self.reply_fields_max != 100).then(|| usize::try_from(self.reply_fields_max).unwrap_or(100).max(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_capture_bytes_max: 1 << 20,
            body_engine_bytes_max: 8 << 20,
            head_bytes_max: 64 << 10,
            head_fields_max: 100,
            reply_fields_max: 100,
            client_connections_max: 10_000,
            client_connections_per_address_max: 0,
            egress_connections_max: 10_000,
            requests_in_flight_max: 0,
            legacy_waiting_max: 1_000,
            legacy_turn_ms: 5_000,
            service_idle_connections_max: 256,
            service_idle_ms: 30_000,
            service_connection_age_ms: 300_000,
            service_resolve_ms: 30_000,
            service_unrepeatable_idle_ms: 250, // servers' shortest keep-alive time-outs are about 1 s
            proxy_header_ms: 5_000,
            tls_handshake_ms: 10_000,
            head_read_ms: 10_000,
            client_idle_ms: 75_000,
            client_park_ms: 1_000,
            client_http2_streams_max: 100,
            client_http2_stream_window_bytes_max: 128 << 10,
            client_http2_window_bytes_max: 1 << 20,
            client_http2_send_buffer_bytes_max: 64 << 10,
            client_http2_resets_max: 200,
            client_http2_control_frames_max: 1_000,
            client_half_close_ms: 2_000,
            linger_ms: 2_000,
            connect_ms: 2_000,
            first_byte_ms: 30_000,
            body_idle_ms: 30_000,
            client_send_bytes_per_s_min: 0,
            client_read_bytes_per_s_min: 0,
            legacy_send_bytes_per_s_min: 0,
            rate_window_ms: 10_000,
            total_ms: 0,
            request_buffers_bytes_max: 64 << 20,
            stop_delay_ms: 0,
            drain_ms: 20_000,
            drain_head_ms: 500,
            succession_waiting_max: 5_000,
            succession_wait_ms: 30_000,
            succession_idle_ms: 250,
            succession_drain_ms: 600_000,
            access_log_lines_max: 8_192,
            spans_waiting_max: 8_192,
            shadow_queue_entries_max: 1_024,
            shadow_queue_bytes_max: 64 << 20,
            shadow_in_flight_max: 64,
            shadow_threads: 2,
            shadow_run_ms: 30_000,
            shadow_drain_ms: 5_000,
            shadow_service_share_percent: 20,
            egress_requests_max: 20_000,
            egress_uncompared_requests_max: 100_000,
            egress_bytes_max: 64 << 20,
            egress_waiting_bytes_max: 64 << 20,
            egress_rehearse_wait_ms: 1_000,
            followups_held_max: 10_000,
            followups_held_bytes_max: 64 << 20,
            followup_window_ms: 30_000,
            compare_ms: 250,
            compare_bytes_max: 1 << 20,
            compare_depth_max: 127,
            compare_differences_max: 64,
            compare_effects_max: 1_000,
            samples_per_fingerprint_max: 3,
            fingerprints_per_route_max: 50,
            sample_bytes_max: 64 << 10,
            items_max: 10_000,
            steps_max: 200,
            run_calls_max: 64,
            service_calls_max: 256,
            runs_in_flight_max: 10_000,
            run_depth_max: 16,
            lease_ms: 10_000,
            sweep_ms: 30_000,
            watchdog_ms: 300_000,
            command_wait_ms: 10_000,
            notice_attempts_max: 10,
            notices_waiting_max: 10_000,
            notice_age_s: 86_400,
            output_bytes_max: 4 << 20,
            signals_max: 100,
            output_depth_max: 100,
            output_values_max: 200_000,
            step_timeout_ms: 10_000,
            answer_ms: 30_000,
            expression_bytes_max: 4_096,
            expression_depth_max: 32,
            append_batch_events_max: 512,
            append_queue_max: 4_096,
            append_dark_batch_events_max: 64,
            payload_inline_bytes_max: 16 << 10,
            run_snapshot_every_events: 1_000,
            run_snapshot_bytes_max: 16 << 20,
            run_snapshot_pause_ms: 1_000,
            run_snapshots_waiting_max: 1_024,
            retry_window_s: 86_400,
            retry_keys_max: 100_000,
            retry_key_marks_max: 65_536,
            engine_keys_set_bytes_max: 64 << 20,
            pins_set_bytes_max: 64 << 20,
            retry_keys_file_bytes_max: 16 << 20,
            move_answer_ms: 8_000,
            store_stall_ms: 5_000,
            store_connect_ms: 5_000,
            store_statement_ms: 10_000,
            store_lock_ms: 5_000,
            store_connections_max: 4,
            api_connections_max: 1_024,
            api_body_bytes_max: 1 << 20,
            api_rows_max: 1_000,
            api_wait_ms: 25_000,
            api_start_events_bytes_max: 4 << 20,
            api_streams_max: 128,
            api_heartbeat_ms: 15_000,
        }
    }
}

impl Limits {
    /// A bound in milliseconds as a duration.
    pub fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }
}
