//! The callers of services, in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::names::ServiceName;
use crate::store::service_callers::SERVICE_CALLERS_MAX;

/// The first and the last call of each caller: service, source, client, path.
pub(super) type Callers = BTreeMap<(ServiceName, String, String, String), (Timestamp, Timestamp)>;

/// Removes the callers of a service beyond the bound, those that called longest ago first.
pub(super) fn trim(callers: &mut Callers, service: &ServiceName) {
    let mut last: Vec<_> =
        callers.iter().filter(|((of, ..), _)| of == service).map(|(key, (_, last))| (*last, key.clone())).collect();
    last.sort_by(|one, other| other.cmp(one));
    for (_, key) in last.into_iter().skip(SERVICE_CALLERS_MAX) {
        callers.remove(&key);
    }
}
