//! Where legacy's calls may go: to a service, named by the first segment of the path or by a URL below one of its base
//! URLs, or to a destination that the files list.
//!
//! Always true: what follows the service's name, or its base URL, is forwarded byte for byte; no other destination can
//! be reached.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;

use super::egress_refusal::EgressRefusal;
use super::route_entry::RouteEntry;
use crate::flag::{BaseUrl, Service};
use crate::listener::{Destination, bare_host};
use crate::names::{RouteId, ServiceName};

/// The target of calls: a service, or a listed destination.
pub(super) struct EgressTarget {
    /// The route entry; its metrics have the route `egress:NAME`.
    pub entry: Arc<RouteEntry>,
    /// `egress:NAME`, for the access log.
    pub route: RouteId,
    /// The label of metrics: the service, or the destination as it is listed.
    pub name: ServiceName,
    /// `None` for a listed destination.
    pub service: Option<ServiceName>,
}

impl EgressTarget {
    /// Returns the full URL of a call: the service's first base URL, then the path and query of `call`. The URL is the
    /// same whichever of the service's addresses gets the call.
    pub(super) fn url(&self, call: &Uri) -> String {
        let base = self.entry.upstream.service.urls.first().map(|url| url.uri.to_string()).unwrap_or_default();
        [base.trim_end_matches('/'), call.path_and_query().map_or("/", |target| target.as_str())].concat()
    }
}

/// A call with its target.
pub(super) struct FoundTarget<'a> {
    pub target: &'a Arc<EgressTarget>,
    /// The path and query of the call, relative to the base path of the service.
    pub uri: Uri,
}

/// Where legacy's calls may go.
pub(super) struct EgressTargets {
    by_name: HashMap<ServiceName, Arc<EgressTarget>>,
    /// Ordered by the length of the base path, longest first.
    bases: Vec<(Base, Arc<EgressTarget>)>,
    listed: Vec<(Destination, Arc<EgressTarget>)>,
}

/// A base URL, split for comparison with the URLs of calls.
struct Base {
    is_https: bool,
    host: String,
    port: u16,
    path: String,
}

impl Base {
    fn of(url: &BaseUrl) -> Self {
        Self {
            is_https: url.is_https(),
            host: bare_host(url.uri.host().unwrap_or_default()),
            port: url.port(),
            path: url.uri.path().trim_end_matches('/').to_owned(),
        }
    }
    /// Returns what follows the base path in a path and query.
    fn rest<'a>(&self, path_and_query: &'a str) -> Option<&'a str> {
        let rest = path_and_query.strip_prefix(self.path.as_str())?;
        (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
    }
}

impl EgressTargets {
    /// `services` by name; `listed` with the service that represents each destination.
    pub(super) fn new(services: Vec<Arc<EgressTarget>>, listed: Vec<(Destination, Arc<EgressTarget>)>) -> Self {
        let with_bases = |target: &Arc<EgressTarget>| {
            let urls: Vec<_> = target.entry.upstream.service.urls.iter().map(Base::of).collect();
            urls.into_iter().map(|base| (base, target.clone())).collect::<Vec<_>>()
        };
        let mut bases: Vec<_> = services.iter().flat_map(with_bases).collect();
        bases.sort_by_key(|(base, _)| std::cmp::Reverse(base.path.len()));
        let named = |target: Arc<EgressTarget>| Some((target.service.clone()?, target));
        Self { by_name: services.into_iter().filter_map(named).collect(), bases, listed }
    }

    /// Finds the target of a request: in origin form the path begins with the name of a service; in absolute form the
    /// URL is the one that the caller would use without Pointsman.
    pub(super) fn find(&self, uri: &Uri) -> Result<FoundTarget<'_>, EgressRefusal> {
        match uri.authority() {
            None => self.by_path(uri),
            Some(_) => self.by_url(uri),
        }
    }

    fn by_path(&self, uri: &Uri) -> Result<FoundTarget<'_>, EgressRefusal> {
        let path_and_query = uri.path_and_query().map_or("", |target| target.as_str());
        let named = path_and_query.strip_prefix('/').ok_or(EgressRefusal::NoService)?;
        let (name, rest) = named.split_at(named.find(['/', '?']).unwrap_or(named.len()));
        let target = self.by_name.get(name).ok_or(EgressRefusal::NoService)?;
        Ok(FoundTarget { target, uri: origin_form(rest)? })
    }

    fn by_url(&self, uri: &Uri) -> Result<FoundTarget<'_>, EgressRefusal> {
        let is_https = uri.scheme_str() == Some("https");
        let host = bare_host(uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let path_and_query = uri.path_and_query().map_or("/", |target| target.as_str());
        let same_origin =
            self.bases.iter().filter(|(base, _)| base.is_https == is_https && base.host == host && base.port == port);
        let mut below = same_origin.filter_map(|(base, to)| Some((to, base.rest(path_and_query)?)));
        if let Some((target, rest)) = below.next() {
            return Ok(FoundTarget { target, uri: origin_form(rest)? });
        }
        // TLS to a listed destination is the caller's own, in a tunnel: the files have no TLS settings for it.
        if is_https {
            return Err(EgressRefusal::NotListed);
        }
        let listed = self.listed.iter().find(|(destination, _)| destination.is(&host, port, 80));
        let (_, target) = listed.ok_or(EgressRefusal::NotListed)?;
        Ok(FoundTarget { target, uri: origin_form(path_and_query)? })
    }

    /// The target of a tunnel.
    pub(super) fn of_tunnel(&self, host: &str, port: u16) -> Result<&Arc<EgressTarget>, EgressRefusal> {
        let bare = bare_host(host);
        let of_service = self.bases.iter().find(|(base, _)| base.host == bare && base.port == port);
        let listed = || self.listed.iter().find(|(destination, _)| destination.is(host, port, 443));
        let target = of_service.map(|(_, target)| target).or_else(|| listed().map(|(_, target)| target));
        target.ok_or(EgressRefusal::NotListed)
    }

    /// The target that has this entry.
    pub(super) fn of_entry(&self, entry: &Arc<RouteEntry>) -> Option<&Arc<EgressTarget>> {
        let targets = self.by_name.values().chain(self.listed.iter().map(|(_, target)| target));
        targets.into_iter().find(|target| Arc::ptr_eq(&target.entry, entry))
    }

    /// Calls that were answered since the start.
    pub(super) fn calls(&self) -> u64 {
        let targets = self.by_name.values().chain(self.listed.iter().map(|(_, target)| target));
        targets.map(|target| target.entry.route_metrics.traffic_counts().0).sum()
    }
}

/// Returns the service that represents a listed destination, for calls in absolute form.
pub(super) fn service_of(destination: &Destination) -> Option<Service> {
    let port = destination.port.unwrap_or(80);
    let uri = format!("http://{}", Destination { port: Some(port), ..destination.clone() }).parse().ok()?;
    // No service of the files has a colon in its name.
    let name = match destination.port {
        Some(_) => destination.to_string(),
        None => format!("{destination}:*"),
    };
    Some(Service::at(name.as_str(), [uri]))
}

/// Returns what follows the service's name or base path as a URI in origin form.
fn origin_form(rest: &str) -> Result<Uri, EgressRefusal> {
    let text = match rest.starts_with('/') {
        true => Bytes::copy_from_slice(rest.as_bytes()),
        false => Bytes::from(["/", rest].concat()),
    };
    Uri::from_maybe_shared(text).map_err(|_| EgressRefusal::NoService)
}
