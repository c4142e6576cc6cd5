//! What new connections of clients use and what a change of the files replaces: the certificates of the listeners
//! (published as a metric), which senders are believed about who the client is, and how calls by legacy are attributed.
//!
//! Always true: a listener whose files are unchanged keeps its certificates, so that its sessions can be resumed; open
//! connections are not touched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use metrics::gauge;

use crate::config::Settings;
use crate::egress::Attribution;
use crate::listener::{Forwarding, Listener, ServerTls};
use crate::proxy::ProxyListener;

/// The settings of new connections, which a change of the files replaces.
pub(super) struct ListenersInForce {
    /// The certificates.
    pub tls: TlsInForce,
    /// What legacy is told about clients.
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    /// How calls by legacy are attributed to requests.
    pub attribution: Option<Attribution>,
}

impl ListenersInForce {
    /// Puts the settings of a new set of files in force.
    pub(super) fn replace(&self, settings: &Settings) {
        self.tls.replace(&settings.listen);
        self.forwarding.store(Arc::new(settings.forwarding.clone()));
        if let (Some(attribution), Some(settings)) = (&self.attribution, &settings.attribution) {
            attribution.set(settings.clone());
        }
    }
}

/// The certificates in force, of all listeners.
#[derive(Clone)]
pub(super) struct TlsInForce(Arc<[ListenerInForce]>);

struct ListenerInForce {
    /// The listener's position in the list of the files.
    index: usize,
    /// The address that the files declare.
    address: SocketAddr,
    /// The certificates that new handshakes use.
    server: Arc<ArcSwap<ServerTls>>,
}

impl TlsInForce {
    /// The certificates of the listeners that are about to be served.
    pub(super) fn new(declared: &[Listener], bound: &[ProxyListener]) -> Self {
        let pairs = declared.iter().zip(bound).enumerate();
        let with_tls = pairs.filter_map(|(index, (declared, bound))| {
            Some(ListenerInForce { index, address: declared.address, server: bound.tls()? })
        });
        Self(with_tls.collect())
    }

    /// Puts the certificates of a new set of files in force, for new handshakes. A listener that is no longer in the
    /// set keeps its certificates until the next start, and so does one whose new certificates have expired while those
    /// in force have not.
    pub(super) fn replace(&self, declared: &[Listener]) {
        let now = SystemTime::now();
        for ListenerInForce { index, address, server: in_force } in &*self.0 {
            let is_this = |listener: &&Listener| listener.address == *address;
            // Several listeners may have the address 0.0.0.0:0.
            let newer = declared.get(*index).filter(is_this).or_else(|| declared.iter().find(is_this));
            let Some(newer) = newer.and_then(|listener| listener.tls.as_ref()?.server.clone()) else { continue };
            if newer.is_same(&in_force.load()) {
                continue;
            }
            // A failed renewal must not replace valid certificates. The warning about the files names the certificate.
            if newer.expires() <= now && in_force.load().expires() > now {
                tracing::error!(
                    listener = %address,
                    "a new certificate has expired; the certificates in force, which have not, are kept"
                );
                continue;
            }
            match Timestamp::try_from(newer.expires()) {
                Ok(expires) => tracing::info!(listener = %address, %expires, "new certificates are in force"),
                Err(_) => tracing::info!(listener = %address, "new certificates are in force"),
            }
            in_force.store(newer);
        }
    }

    /// Writes the time until certificates expire to its metric; called before each scrape.
    pub(super) fn publish(&self) {
        let now = SystemTime::now();
        for ListenerInForce { address, server, .. } in &*self.0 {
            let expires = server.load().expires();
            let seconds = match expires.duration_since(now) {
                Ok(left) => left.as_secs_f64(),
                Err(expired) => -expired.duration().as_secs_f64(),
            };
            gauge!("pointsman_certificate_expires_seconds", "listener" => address.to_string()).set(seconds);
        }
    }
}
