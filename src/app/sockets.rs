//! The sockets on which a process listens: opened by the process itself, passed to it by a service manager, or handed
//! over by its predecessor.
//!
//! Always true: each listener of the files has one socket, or the process does not start. If a service manager passed
//! sockets, none is opened here, and each passed socket belongs to a listener: by its address, else by its name
//! (`listen`, `admin`, `api`, `egress`; several of one name in the order of the files). Of sockets that are handed
//! over, those without a listener in the files are left to the other process, and missing sockets are opened.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail, ensure};

use super::succession::OfferedSocket;
use crate::config::Settings;

/// A listening socket that was opened before this process started.
#[derive(Debug)]
pub struct GivenSocket {
    pub(super) socket: TcpListener,
    /// The address to which it is bound.
    pub(super) address: SocketAddr,
    /// The name that the service manager or the predecessor gave to the socket; may be empty.
    pub(super) name: String,
    /// The socket's address in the files of the process that hands it over.
    pub(super) declared: Option<SocketAddr>,
    /// Where the socket came from, for errors.
    pub(super) origin: String,
}

/// The sockets that were given to a process.
#[derive(Debug, Default)]
pub enum GivenSockets {
    /// None: the process opens its own.
    #[default]
    None,
    /// Sockets from a service manager.
    Activated(Vec<GivenSocket>),
    /// Sockets from another process, or from this one before it started again.
    HandedOver(Vec<GivenSocket>),
}

/// The listening sockets of a process, in the order of the files.
#[derive(Debug)]
pub(super) struct Sockets(Vec<(Declared, TcpListener)>);

/// One listener of the files.
#[derive(Clone, Copy, Debug)]
struct Declared {
    /// The name of the listener's socket.
    name: &'static str,
    /// The listener's key in the files.
    key: &'static str,
    address: SocketAddr,
}

const LISTEN: &str = "listen";
const ADMIN: &str = "admin";
const API: &str = "api";
const EGRESS: &str = "egress";

impl Declared {
    /// The listeners of the files: those of the proxy, `admin`, and `api` and `egress` if there are any.
    fn all(settings: &Settings) -> Vec<Self> {
        let proxy =
            settings.listen.iter().map(|listener| Self { name: LISTEN, key: "listen", address: listener.address });
        let admin = Self { name: ADMIN, key: "admin.listen", address: settings.admin };
        let api = settings.api.map(|address| Self { name: API, key: "api.listen", address });
        let egress = settings.egress.as_ref();
        let egress = egress.map(|egress| Self { name: EGRESS, key: "egress.listen", address: egress.address });
        proxy.chain([admin]).chain(api).chain(egress).collect()
    }
}

impl GivenSocket {
    /// A socket that the predecessor offers.
    pub(super) fn handed_over((offered, socket): (OfferedSocket, TcpListener)) -> io::Result<Self> {
        let OfferedSocket { name, declared } = offered;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, name, declared: Some(declared), origin: "a socket that was handed over".to_owned() })
    }
}

impl Sockets {
    /// The sockets of the listeners.
    ///
    /// # Errors
    /// An address cannot be used; or the sockets that a service manager passed are not those of the files.
    pub(super) async fn open(settings: &Settings, given: GivenSockets) -> anyhow::Result<Self> {
        let declared = Declared::all(settings);
        let found = match given {
            GivenSockets::None => declared.iter().map(|_| None).collect(),
            GivenSockets::Activated(given) => assign(&declared, given)?.into_iter().map(Some).collect(),
            GivenSockets::HandedOver(given) => take(&declared, given),
        };
        let mut sockets = Vec::new();
        for (declared, found) in declared.into_iter().zip(found) {
            let socket = match found {
                Some(socket) => socket,
                None => bind(&declared).await?,
            };
            socket.set_nonblocking(true)?;
            sockets.push((declared, socket));
        }
        Ok(Self(sockets))
    }

    /// Copies of the proxy's sockets.
    pub(super) fn proxy(&self) -> io::Result<Vec<TcpListener>> {
        self.0.iter().filter(|(declared, _)| declared.name == LISTEN).map(|(_, socket)| socket.try_clone()).collect()
    }

    /// A copy of the API's socket.
    pub(super) fn admin(&self) -> io::Result<TcpListener> {
        self.copy(ADMIN).unwrap_or_else(|| Err(io::Error::other("the API has no socket")))
    }

    /// A copy of the socket of the listener for applications, if there is one.
    pub(super) fn api(&self) -> io::Result<Option<TcpListener>> {
        self.copy(API).transpose()
    }

    /// A copy of the socket of the listener for legacy's calls, if there is one.
    pub(super) fn egress(&self) -> io::Result<Option<TcpListener>> {
        self.copy(EGRESS).transpose()
    }

    /// The addresses of all sockets.
    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(|(_, socket)| socket.local_addr()).collect()
    }

    fn copy(&self, name: &str) -> Option<io::Result<TcpListener>> {
        self.0.iter().find(|(declared, _)| declared.name == name).map(|(_, socket)| socket.try_clone())
    }

    /// Copies of all sockets, for a successor.
    pub(super) fn offer(&self) -> io::Result<Vec<(OfferedSocket, TcpListener)>> {
        let offered = |(declared, socket): &(Declared, TcpListener)| {
            Ok((OfferedSocket { name: declared.name.to_owned(), declared: declared.address }, socket.try_clone()?))
        };
        self.0.iter().map(offered).collect()
    }
}

/// Opens a socket. Tokio's queue of new connections is longer than that of the standard library.
async fn bind(declared: &Declared) -> anyhow::Result<TcpListener> {
    let Declared { key, address, .. } = *declared;
    let listening = || format!("listening on {address} (`{key}`)");
    let socket = tokio::net::TcpListener::bind(address).await.with_context(listening)?;
    socket.into_std().with_context(listening)
}

type Belongs = fn(&GivenSocket, &Declared) -> bool;

fn has_same_address(given: &GivenSocket, declared: &Declared) -> bool {
    given.address.ip() == declared.address.ip() && given.address.port() == declared.address.port()
}

/// Finds the socket of each listener, by the first of these rules that finds one, and removes the found sockets from
/// `given`.
fn find(declared: &[Declared], given: &mut Vec<GivenSocket>, rules: [Belongs; 2]) -> Vec<Option<GivenSocket>> {
    let mut found: Vec<Option<GivenSocket>> = declared.iter().map(|_| None).collect();
    for belongs in rules {
        for (declared, found) in declared.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let index = given.iter().position(|given| belongs(given, declared));
            *found = index.map(|index| given.remove(index));
        }
    }
    found
}

/// The handed-over socket of each listener. The name must be the same, since the other process still answers on the
/// socket under that name.
fn take(declared: &[Declared], mut given: Vec<GivenSocket>) -> Vec<Option<TcpListener>> {
    let is_same: Belongs = |given, declared| given.name == declared.name && given.declared == Some(declared.address);
    let is_at: Belongs = |given, declared| given.name == declared.name && has_same_address(given, declared);
    find(declared, &mut given, [is_same, is_at]).into_iter().map(|found| found.map(|found| found.socket)).collect()
}

/// Finds the socket of each listener among those that a service manager passed.
fn assign(declared: &[Declared], mut given: Vec<GivenSocket>) -> anyhow::Result<Vec<TcpListener>> {
    // By address first, so that a socket with a listener's address is not taken for another listener of the same name.
    let found = find(declared, &mut given, [has_same_address, |given, declared| given.name == declared.name]);
    if let Some(GivenSocket { address, name, origin, .. }) = given.first() {
        let named = if name.is_empty() { String::new() } else { format!(", named `{name}`") };
        bail!(
            "{origin} listens on {address}{named}, and that is no listener of the files: {}. Name a socket `listen`, \
             `admin`, `api` or `egress` if its address differs from the one in the files. Nothing was started",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &'static str, address: &str) -> Declared {
        Declared { name, key: name, address: address.parse().unwrap() }
    }

    fn given(name: &str) -> GivenSocket {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, origin) = (socket.local_addr().unwrap(), "it".to_owned());
        GivenSocket { address, socket, name: name.to_owned(), declared: None, origin }
    }

    fn addresses(sockets: &[TcpListener]) -> Vec<SocketAddr> {
        sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
    }

    #[test]
    fn a_socket_belongs_to_the_listener_with_its_address_or_else_with_its_name() {
        let (a, b) = (given("admin"), given("listen"));
        let all = [declared("listen", "127.0.0.1:1"), declared("admin", &a.address.to_string())];
        let expected = [b.address, a.address];
        assert_eq!(addresses(&assign(&all, vec![a, b]).unwrap()), expected);
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
        let open = GivenSocket { address: socket.local_addr().unwrap(), socket, ..given("admin") };
        let refused = assign(&[declared("admin", "127.0.0.1:1")], vec![open]).unwrap_err().to_string();
        assert!(refused.contains("other machines can reach"), "{refused}");
    }

    #[test]
    fn handed_over_sockets_with_a_listener_of_the_same_name_are_taken() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (a, b, c) = (given("listen"), given("listen"), given("admin"));
        let (at_a, at_b, at_c) = (a.address, b.address, c.address);
        let a = GivenSocket { declared: Some(any), ..a };
        let all = [
            declared("listen", &at_b.to_string()),
            declared("listen", "127.0.0.1:0"),
            declared("listen", &at_c.to_string()),
            declared("admin", "127.0.0.1:0"),
        ];
        let taken = take(&all, vec![a, b, c]);
        let taken: Vec<_> =
            taken.iter().map(|socket| socket.as_ref().map(|socket| socket.local_addr().unwrap())).collect();
        assert_eq!(
            taken,
            [Some(at_b), Some(at_a), None, None],
            "the API of the other process still answers on its socket"
        );
    }
}
