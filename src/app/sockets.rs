//! The sockets on which a process listens: opened here, or given to it by a service manager.
//!
//! Always true: each listener of the files has one socket, or the process does not start. If sockets were given, none
//! is opened here, and each of them belongs to a listener: by its address, else by its name (`listen`, `admin`, `api`;
//! several of one name in the order of the files).

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::join_all;

use crate::config::Settings;

/// A listening socket that was opened before this process started.
#[derive(Debug)]
pub struct GivenSocket {
    pub(super) socket: TcpListener,
    /// The address to which it is bound.
    pub(super) address: SocketAddr,
    /// The name that its giver has for it; may be empty.
    pub(super) name: String,
    /// Where it came from, for errors.
    pub(super) origin: String,
}

/// The listening sockets of a process.
#[derive(Debug)]
pub(super) struct Sockets {
    /// In the order of `listen`.
    pub proxy: Vec<TcpListener>,
    pub admin: TcpListener,
    pub api: Option<TcpListener>,
}

/// One listener of the files.
#[derive(Clone, Copy)]
struct Declared {
    /// The name of its socket.
    name: &'static str,
    /// Its key in the files.
    key: &'static str,
    address: SocketAddr,
}

impl Declared {
    /// The listeners of the files: those of the proxy, `admin`, and `api` if there is one.
    fn all(settings: &Settings) -> Vec<Self> {
        let proxy =
            settings.listen.iter().map(|listener| Self { name: "listen", key: "listen", address: listener.address });
        let admin = Self { name: "admin", key: "admin.listen", address: settings.admin };
        let api = settings.api.map(|address| Self { name: "api", key: "api.listen", address });
        proxy.chain([admin]).chain(api).collect()
    }
}

impl Sockets {
    /// The sockets of the listeners: those that were given, or if there are none, new ones.
    ///
    /// # Errors
    /// An address cannot be used; the sockets that were given are not those of the files.
    pub async fn open(settings: &Settings, given: Vec<GivenSocket>) -> anyhow::Result<Self> {
        let declared = Declared::all(settings);
        let sockets = match given.is_empty() {
            true => join_all(declared.iter().map(bind)).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?,
            false => assign(&declared, given)?,
        };
        let mut sockets = sockets.into_iter();
        let proxy: Vec<_> = sockets.by_ref().take(settings.listen.len()).collect();
        let admin = sockets.next().context("the API has no socket")?;
        Ok(Self { proxy, admin, api: sockets.next() })
    }
}

/// Opens a socket. The runtime's queue of new connections is longer than that of the standard library.
async fn bind(declared: &Declared) -> anyhow::Result<TcpListener> {
    let Declared { key, address, .. } = *declared;
    let listening = || format!("listening on {address} (`{key}`)");
    let socket = tokio::net::TcpListener::bind(address).await.with_context(listening)?;
    socket.into_std().with_context(listening)
}

/// Finds the socket of each listener among those that were given.
fn assign(declared: &[Declared], mut given: Vec<GivenSocket>) -> anyhow::Result<Vec<TcpListener>> {
    let mut found: Vec<Option<GivenSocket>> = declared.iter().map(|_| None).collect();
    // By address first, so that a socket that has a listener's address is not taken for another one of its name.
    let is_at = |given: &GivenSocket, declared: &Declared| same_address(given.address, declared.address);
    let is_named = |given: &GivenSocket, declared: &Declared| given.name == declared.name;
    for belongs in [&is_at as &dyn Fn(&GivenSocket, &Declared) -> bool, &is_named] {
        for (declared, found) in declared.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let index = given.iter().position(|given| belongs(given, declared));
            *found = index.map(|index| given.remove(index));
        }
    }
    if let Some(GivenSocket { address, name, origin, .. }) = given.first() {
        let named = if name.is_empty() { String::new() } else { format!(", named `{name}`") };
        bail!(
            "{origin} listens on {address}{named}, and that is no listener of the files: {}. Name a socket `listen`, \
             `admin` or `api` if its address differs from the one in the files. Nothing was started",
            listed(declared)
        );
    }
    let sockets = declared.iter().zip(found).map(|(Declared { key, address, name }, found)| {
        let found = found.with_context(|| {
            format!(
                "sockets were passed to this process, and none is for `{key}` ({address}): pass one that is bound to \
                 this address or has the name `{name}`. Nothing was started"
            )
        })?;
        ensure!(
            found.address.ip().is_loopback() || !address.ip().is_loopback(),
            "{} for `{key}` listens on {}, which other machines can reach; the files say {address}. Write the address \
             into the files, so that they are checked for it. Nothing was started",
            found.origin,
            found.address
        );
        Ok(found.socket)
    });
    sockets.collect()
}

fn listed(declared: &[Declared]) -> String {
    let all: Vec<_> = declared.iter().map(|Declared { key, address, .. }| format!("`{key}` {address}")).collect();
    all.join(", ")
}

/// Whether two addresses are the same to a client; those of IPv6 may have further parts.
fn same_address(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &'static str, address: &str) -> Declared {
        Declared { name, key: name, address: address.parse().unwrap() }
    }

    fn given(name: &str) -> GivenSocket {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        GivenSocket { address: socket.local_addr().unwrap(), socket, name: name.to_owned(), origin: "it".to_owned() }
    }

    #[test]
    fn a_socket_belongs_to_the_listener_with_its_address_or_else_with_its_name() {
        let (a, b) = (given("admin"), given("listen"));
        let all = [declared("listen", "127.0.0.1:1"), declared("admin", &a.address.to_string())];
        let (at_a, at_b) = (a.address, b.address);
        let found: Vec<_> = assign(&all, vec![a, b]).unwrap().iter().map(|it| it.local_addr().unwrap()).collect();
        assert_eq!(found, [at_b, at_a]);
    }

    #[test]
    fn a_listener_without_a_socket_is_named() {
        let all = [declared("listen", "127.0.0.1:1"), declared("admin", "127.0.0.1:2")];
        let refused = assign(&all, vec![given("listen")]).unwrap_err().to_string();
        assert!(refused.contains("none is for `admin` (127.0.0.1:2)"), "{refused}");
    }

    #[test]
    fn a_socket_without_a_listener_is_refused() {
        let (one, more) = (given("listen"), given("other"));
        let at = more.address.to_string();
        let refused = assign(&[declared("listen", "127.0.0.1:1")], vec![one, more]).unwrap_err().to_string();
        assert!(refused.contains(&at) && refused.contains("named `other`"), "{refused}");
    }

    #[test]
    fn a_socket_is_not_reached_by_more_machines_than_its_listener_in_the_files() {
        let socket = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = socket.local_addr().unwrap();
        let open = GivenSocket { address, socket, name: "admin".to_owned(), origin: "descriptor 3".to_owned() };
        let refused = assign(&[declared("admin", "127.0.0.1:1")], vec![open]).unwrap_err().to_string();
        assert!(refused.contains("other machines can reach"), "{refused}");
    }
}
