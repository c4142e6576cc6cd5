//! The egress listener, as the files declare it: on which address legacy's own calls are taken, from whom, and where
//! they may go.
//!
//! Always true: it is no open proxy. A call goes to a service of the files, or to a destination that they list.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::network::Network;

/// The egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressListener {
    /// The address.
    pub address: SocketAddr,
    /// The networks of the callers. Empty: this machine only.
    pub allow: Vec<Network>,
    /// Where calls may go, in addition to the services.
    pub to: Vec<Destination>,
}

impl EgressListener {
    /// Whether calls of this address are taken.
    pub fn admits(&self, caller: IpAddr) -> bool {
        match &self.allow[..] {
            [] => caller.to_canonical().is_loopback(),
            networks => networks.iter().any(|network| network.contains(caller)),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A name in lower case, or an address; one of IPv6 without brackets.
    pub host: String,
    /// `None`: 80 for plain HTTP, 443 for a tunnel.
    pub port: Option<u16>,
}

impl Destination {
    /// Parses `HOST` or `HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let hint =
            || "write `HOST` or `HOST:PORT`, for example `api.example.org:443` or `[2001:db8::1]:8080`".to_owned();
        let wrong = || (format!("`{text}` is not a host with an optional port"), hint());
        let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
        let port = match text[authority.host().len()..].strip_prefix(':') {
            Some(_) => Some(authority.port_u16().filter(|port| *port > 0).ok_or_else(wrong)?),
            None if authority.host() == text => None,
            None => return Err(wrong()),
        };
        let host = bare_host(authority.host());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || !(host.parse::<IpAddr>().is_ok() || host.bytes().all(is_name)) {
            return Err(wrong());
        }
        Ok(Self { host, port })
    }

    /// Whether it is this host with this port; `default` is the port that it has without one of its own.
    pub fn is(&self, host: &str, port: u16, default: u16) -> bool {
        self.host == bare_host(host) && self.port.unwrap_or(default) == port
    }
}

/// A host in lower case, without the brackets of an IPv6 address and without the trailing dot of a full name.
pub fn bare_host(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_host_with_an_optional_port() {
        for (text, host, port) in [
            ("api.example.org", "api.example.org", None),
            ("API.example.org.:8443", "api.example.org", Some(8443)),
            ("192.0.2.7:80", "192.0.2.7", Some(80)),
            ("[2001:db8::1]:8080", "2001:db8::1", Some(8080)),
            ("[::1]", "::1", None),
        ] {
            let parsed = Destination::parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{text}");
        }
        for text in ["", "a b", "http://a.test", "a.test/x", "user@a.test", "a.test:", "a.test:0", "a.test:99999", "*"]
        {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_port_a_destination_has_that_of_the_protocol() {
        let any = Destination::parse("a.test").unwrap();
        assert!(any.is("A.test.", 80, 80) && any.is("a.test", 443, 443) && !any.is("a.test", 8080, 80));
        let one = Destination::parse("a.test:8080").unwrap();
        assert!(one.is("a.test", 8080, 80) && !one.is("a.test", 80, 80) && !one.is("b.test", 8080, 80));
    }

    #[test]
    fn without_networks_only_this_machine_may_call() {
        let mut listener = EgressListener { address: "127.0.0.1:0".parse().unwrap(), allow: vec![], to: vec![] };
        assert!(listener.admits("127.0.0.1".parse().unwrap()) && listener.admits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!listener.admits("10.1.2.3".parse().unwrap()));
        listener.allow = vec![Network::parse("10.0.0.0/8").unwrap()];
        assert!(listener.admits("10.1.2.3".parse().unwrap()) && !listener.admits("127.0.0.1".parse().unwrap()));
    }
}
