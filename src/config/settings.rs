//! `pointsman.yaml`, apart from its services: listeners, tokens, store, secrets, limits.
//!
//! Always true: a [`Settings`] was checked: its addresses are valid and differ, an API that can be reached from other
//! machines has tokens, every secret that it names has been read (by `secrets`), unless secrets may be absent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::access_log;
use super::access_log::AccessLogDraft;
use super::addresses::{address, addresses_collide};
use super::egress::{self, EgressDraft};
use super::egress_attribution;
use super::forwarding::{self, FieldsDraft, TrustDraft};
use super::limits_check;
use super::listener_tls::Context;
use super::listeners::{self, ListenDraft};
use super::referenced_files::ReferencedFiles;
use super::retention::{self, RetentionDraft};
use super::secrets::{secret, store_key};
use super::setup::{Overrides, Settings, StoreUrl, Token, TokenScope};
use super::store_url::{STORE_FORMS, parse_store};
use super::traces::{self, TracesDraft};
use crate::flag::file::{GuardDraft, PromoteDraft, RedactDraft, redact_rules};
use crate::limits::Limits;
use crate::problem::{Problems, Severity, Site};
use crate::secret::Secret;

/// `pointsman.yaml`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PointsmanDraft {
    /// The proxy's listeners: an address (`ADDRESS:PORT`), a map, or a list of both. Default `127.0.0.1:8080`.
    pub listen: Option<ListenDraft>,
    /// The API, the metrics, and the help topics as pages.
    pub admin: AdminDraft,
    /// The listener on which applications start runs and read them.
    pub api: ApiDraft,
    /// The listener for calls that legacy makes, and how they are attributed to requests; without it there is none.
    pub egress: Option<EgressDraft>,
    /// Named HTTP bases: legacy services, and whatever steps call.
    pub services: serde_json::Map<String, serde_json::Value>,
    /// The service that gets, unchanged, every request that no route matches.
    pub default_legacy: Option<String>,
    /// Values for `${secrets.NAME}` in a call's headers and URL.
    pub secrets: BTreeMap<String, SecretDraft>,
    /// `sqlite:PATH` (default `sqlite:pointsman.db`), `postgres://USER@HOST:PORT/DATABASE` or `memory`.
    pub store: Option<String>,
    /// The directory of the retry-key file. It holds the retry keys of requests that legacy took, until the store has
    /// them. Default: next to a SQLite store; else `$STATE_DIRECTORY`, or a directory for this user among the temporary
    /// files.
    pub retry_keys_dir: Option<String>,
    /// The PostgreSQL server itself (`postgres://USER@HOST:PORT/DATABASE`), where `store` is a pooler in transaction
    /// mode before it: for LISTEN, the writer and leases, which need a session.
    pub store_direct: Option<String>,
    /// The password of a PostgreSQL store.
    pub store_password: Option<SecretDraft>,
    /// 32 bytes as 64 hex digits or base64; encrypts the credentials of callers in the store.
    pub store_key: Option<SecretDraft>,
    /// What the gates require of the evidence of routes that do not say otherwise.
    pub promote: PromoteDraft,
    /// When routes with a workflow that do not say otherwise are lowered automatically.
    pub guard: Option<GuardDraft>,
    /// What is redacted in addition to the names that are secret anyway, before anything is stored or logged.
    pub redact: RedactDraft,
    /// How long ended runs are kept; without it, the default with which the store was created.
    pub retention: Option<RetentionDraft>,
    /// Bounds of the process.
    pub limits: Limits,
    /// The peers whose `X-Forwarded-*` and `Forwarded` headers are believed and added to, instead of being replaced:
    /// the networks of the proxies in front, such as `[10.0.0.0/8]`; `true` is everybody, `false` (the default) nobody.
    pub trust_forwarded: TrustDraft,
    /// The headers that tell legacy about the client: `x-forwarded` (the default), `rfc7239` (`Forwarded`), or `both`.
    pub forwarded: FieldsDraft,
    /// Whether each answer says which arm gave it (`pointsman-arm: legacy`, `engine` or `proxy`), unless the route says
    /// otherwise.
    pub expose: bool,
    /// One line per exchange with a client; without it there is no access log.
    pub access_log: Option<AccessLogDraft>,
    /// Spans of exchanges and runs for an OpenTelemetry collector; without it there are none.
    pub traces: Option<TracesDraft>,
}

/// The listener of the whole API, with flips and metrics.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminDraft {
    /// `ADDRESS:PORT`. Default `127.0.0.1:8081`.
    pub listen: Option<String>,
    /// Bearer tokens; needed where the address is not loopback.
    pub tokens: Vec<TokenDraft>,
}

/// The listener for applications.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ApiDraft {
    /// `ADDRESS:PORT` of a listener that serves only the paths of runs: no flips, no metrics. It takes the tokens of
    /// `admin.tokens`. Without it, these paths are served on `admin.listen` only.
    pub listen: Option<String>,
    /// Whether the deprecated `POST /api/maestro/produce` is served.
    pub maestro: bool,
}

impl Default for ApiDraft {
    fn default() -> Self {
        Self { listen: None, maestro: true }
    }
}

/// A named bearer token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenDraft {
    /// The token's name, recorded with everything that is done with the token.
    pub name: String,
    /// The file that holds the token.
    #[serde(default)]
    pub file: Option<String>,
    /// The environment variable that holds the token.
    #[serde(default)]
    pub env: Option<String>,
    /// The token's scopes.
    pub may: Vec<TokenScope>,
}

/// A secret, in an environment variable or a file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SecretDraft {
    /// The environment variable.
    pub env: Option<String>,
    /// The file, relative to the directory of the flag files.
    pub file: Option<String>,
}

/// Checks everything in a draft except its services.
pub(crate) fn check(
    draft: &PointsmanDraft,
    site: &Site,
    dir: &Path,
    overrides: &Overrides,
    files: &mut ReferencedFiles,
    problems: &mut Problems,
) -> Option<Settings> {
    let errors_before = problems.iter().filter(|p| p.severity == Severity::Error).count();
    let listen_site = site.key("listen");
    let mut context = Context { dir, overrides, files };
    let listen = listeners::check(draft.listen.as_ref(), &listen_site, &mut context, problems);
    let admin_site = site.key("admin").key("listen");
    let admin = match overrides.admin {
        Some(admin) => Some(admin),
        None => address(draft.admin.listen.as_deref().unwrap_or("127.0.0.1:8081"), &admin_site, problems),
    };
    let colliding = |address: SocketAddr| {
        let mut of_proxy = listen.iter().map(|(_, listener)| listener.address);
        of_proxy.find(|listener| addresses_collide(*listener, address))
    };
    if let Some(of_proxy) = admin.and_then(colliding) {
        problems
            .error(&admin_site, format!("the API has the proxy's address, {of_proxy}"))
            .hint("give one of `listen` and `admin.listen` another port");
    }
    let api_site = site.key("api").key("listen");
    let api = draft.api.listen.as_deref().and_then(|text| address(text, &api_site, problems));
    let of_admin = admin.filter(|admin| api.is_some_and(|api| addresses_collide(api, *admin)));
    for (key, other) in [("listen", api.and_then(colliding)), ("admin.listen", of_admin)] {
        if let Some(other) = other {
            problems
                .error(&api_site, format!("`api.listen` has the address of `{key}`, {other}"))
                .hint("give `api.listen` another port, or leave it out: `admin.listen` serves the same paths");
        }
    }
    let egress_site = site.key("egress");
    let egress = draft.egress.as_ref().and_then(|draft| egress::check(draft, &egress_site, problems));
    if let Some(egress) = &egress {
        let others = [("listen", colliding(egress.address)), ("admin.listen", admin), ("api.listen", api)];
        let mut others = others.into_iter().filter_map(|(key, other)| Some((key, other?)));
        if let Some((key, other)) = others.find(|(_, other)| addresses_collide(*other, egress.address)) {
            problems
                .error(&egress_site.key("listen"), format!("`egress.listen` has the address of `{key}`, {other}"))
                .hint("give `egress.listen` another port");
        }
    }
    let tokens = tokens(&draft.admin.tokens, &site.key("admin").key("tokens"), dir, overrides, problems);
    if let Some(admin) = admin.filter(|admin| !admin.ip().is_loopback() && draft.admin.tokens.is_empty()) {
        problems
            .error(&admin_site, format!("the API on {admin} can be reached from other machines and has no tokens"))
            .hint("add `admin.tokens: [{ name, file, may: [read, run, decide, flip] }]`, or listen on 127.0.0.1");
    }
    if let Some(api) = api.filter(|api| !api.ip().is_loopback() && draft.admin.tokens.is_empty()) {
        problems
            .error(&api_site, format!("runs can be started on {api} from other machines, and there are no tokens"))
            .hint("add `admin.tokens: [{ name, file, may: [read, run] }]`, or listen on 127.0.0.1");
    }
    let mut secrets = BTreeMap::new();
    for (name, draft) in &draft.secrets {
        let site = site.key("secrets").key(name.as_str());
        if !is_identifier(name) {
            problems
                .error(&site.clone().at_key(), format!("`{name}` cannot be named in an expression"))
                .hint("a secret's name has letters, digits and `_`, and does not begin with a digit");
        }
        if let Some(value) = secret(&draft.env, &draft.file, &site, dir, overrides, problems) {
            secrets.insert(name.clone(), Secret::new(value));
        } else if overrides.secrets_may_be_absent {
            secrets.insert(name.clone(), Secret::new(""));
        }
    }
    let store_key = draft.store_key.as_ref().and_then(|key| {
        let site = site.key("store_key");
        match secret(&key.env, &key.file, &site, dir, overrides, problems) {
            Some(text) => store_key(&text, &site, problems),
            None if overrides.secrets_may_be_absent => Some(Secret::new("0".repeat(64))),
            None => None,
        }
    });
    let password = draft.store_password.as_ref().and_then(|at| {
        let site = site.key("store_password");
        secret(&at.env, &at.file, &site, dir, overrides, problems).map(Secret::new)
    });
    let store = match &overrides.store {
        // An error in `--store` has no position in the files. The files' `store_password` is for PostgreSQL only.
        Some(text) => {
            let password = password.filter(|_| text.starts_with("postgres"));
            parse_store(text, password).map_err(|why| {
                problems.error(site, format!("`--store`: {why}")).hint(STORE_FORMS);
            })
        }
        None => parse_store(draft.store.as_deref().unwrap_or("sqlite:pointsman.db"), password).map_err(|why| {
            problems.error(&site.key("store"), why).hint(STORE_FORMS);
        }),
    }
    .ok();
    let store = store.and_then(|store| behind_pooler(store, draft, overrides, site, problems));
    let access_log_site = site.key("access_log");
    let access_log = draft.access_log.as_ref();
    let access_log = access_log.and_then(|draft| access_log::check(draft, dir, &access_log_site, problems));
    let traces_site = site.key("traces");
    let secrets_read = traces::Secrets { named: &draft.secrets, values: &secrets };
    let traces = draft.traces.as_ref();
    let traces = traces.and_then(|draft| traces::check(draft, &secrets_read, &traces_site, &mut context, problems));
    let attribution = draft.egress.as_ref().and_then(|EgressDraft { correlate, window, .. }| {
        egress_attribution::check(correlate.as_deref(), window.as_deref(), &egress_site, problems)
    });
    let forwarding = forwarding::check(&draft.trust_forwarded, draft.forwarded, site, problems);
    limits_check::check(&draft.limits, &site.key("limits"), problems);
    let window = Duration::from_secs(draft.limits.retry_window_s);
    let retention = retention::check(draft.retention.as_ref(), window, &site.key("retention"), problems);
    let redact = redact_rules(&draft.redact, &site.key("redact"), problems);
    let errors_after = problems.iter().filter(|p| p.severity == Severity::Error).count();
    (errors_before == errors_after).then_some(())?;
    Some(Settings {
        identity_headers: listeners::identity_headers(draft.listen.as_ref(), &listen_site),
        listen: listen.into_iter().map(|(_, listener)| listener).collect(),
        admin: admin?,
        api,
        egress,
        deprecated_start: draft.api.maestro,
        tokens,
        store: store?,
        retry_keys_dir: draft.retry_keys_dir.as_ref().map(PathBuf::from),
        store_key,
        secrets,
        redact,
        retention,
        forwarding,
        exposes_arm: draft.expose,
        access_log,
        traces,
        attribution,
    })
}

fn tokens(
    drafts: &[TokenDraft],
    site: &Site,
    dir: &Path,
    overrides: &Overrides,
    problems: &mut Problems,
) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let site = site.index(index);
        if draft.name.is_empty() || draft.name.contains(|c: char| c.is_control()) {
            problems
                .error(&site.key("name"), "a token needs a name without control characters")
                .hint("the name is recorded with everything that the token does");
        }
        if drafts[..index].iter().any(|other| other.name == draft.name) {
            problems.error(&site.key("name"), format!("two tokens are named `{}`", draft.name));
        }
        if draft.may.is_empty() {
            problems.warn(&site.key("may"), format!("the token `{}` may do nothing", draft.name));
        }
        let value = secret(&draft.env, &draft.file, &site, dir, overrides, problems);
        // A token that cannot be read is kept with an empty value: the checks of who may answer need its name.
        let is_unread = value.is_none() && overrides.secrets_may_be_absent;
        if let Some(value) = value.or_else(|| is_unread.then(String::new)) {
            if value.len() < 16 && !is_unread {
                problems
                    .error(&site, format!("the token `{}` is shorter than 16 characters", draft.name))
                    .hint("make one with `openssl rand -hex 32`");
            }
            tokens.push(Token { name: draft.name.clone(), secret: Secret::new(value), scopes: draft.may.clone() });
        }
    }
    tokens
}

/// Whether the name can follow a dot in an expression.
fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The store with the address of its server, if there is one. `--store` may name a store without a pooler.
fn behind_pooler(
    store: StoreUrl,
    draft: &PointsmanDraft,
    overrides: &Overrides,
    site: &Site,
    problems: &mut Problems,
) -> Option<StoreUrl> {
    let is_of_files = overrides.store.is_none() || matches!(store, StoreUrl::Postgres { .. });
    let Some(direct) = draft.store_direct.as_deref().filter(|_| is_of_files) else { return Some(store) };
    store
        .behind_pooler(direct)
        .map_err(|why| {
            problems.error(&site.key("store_direct"), why);
        })
        .ok()
}
