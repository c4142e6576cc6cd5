//! The PROXY header, by which a load balancer tells whose connection it passes on.
//!
//! Versions 1 and 2 of the PROXY protocol, parsed strictly. Always true: nothing that follows the header is consumed; a
//! header has at most [`V1_BYTES_MAX`] or [`PROXY_HEADER_BYTES_MAX`] bytes; what is not a header ends the connection
//! without an answer, because its sender is not the load balancer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::net::TcpStream;

use crate::limits::PROXY_HEADER_BYTES_MAX;
use crate::listener::ProxyVersion;

/// The longest header of version 1, with its line end.
pub(super) const V1_BYTES_MAX: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED_BYTES: usize = 16;

/// The result of parsing the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a header, so far valid.
    Incomplete,
    /// A complete header.
    Complete {
        /// The length of the header in bytes.
        length: usize,
        /// The client's address; `None` if the load balancer speaks for itself or does not know it.
        source: Option<IpAddr>,
    },
}

/// Why a connection has no valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// The bytes are not a header of an accepted version.
    Malformed,
    /// The header is longer than allowed.
    TooLong,
    /// The connection ended before the header did.
    Closed,
}

impl BadHeader {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            BadHeader::Malformed => "malformed",
            BadHeader::TooLong => "too_long",
            BadHeader::Closed => "closed",
        }
    }
}

/// Reads exactly the header. Returns the client's address.
pub(super) async fn read(socket: &TcpStream, version: ProxyVersion) -> Result<Option<IpAddr>, BadHeader> {
    let mut buffer = vec![0; PROXY_HEADER_BYTES_MAX];
    let mut held = 0;
    loop {
        // Peeks first, and consumes only bytes that belong to the header.
        let seen = socket.peek(&mut buffer[held..]).await.map_err(|_| BadHeader::Closed)?;
        if seen == 0 {
            return Err(BadHeader::Closed);
        }
        match parse(&buffer[..held + seen], version)? {
            Parsed::Incomplete => {
                consume(socket, &mut buffer[held..held + seen]).await?;
                held += seen;
            }
            Parsed::Complete { length, source } => {
                consume(socket, &mut buffer[held..length]).await?;
                return Ok(source);
            }
        }
    }
}

/// Reads bytes that are in the socket's buffer.
async fn consume(socket: &TcpStream, mut bytes: &mut [u8]) -> Result<(), BadHeader> {
    while !bytes.is_empty() {
        match socket.try_read(bytes) {
            Ok(0) => return Err(BadHeader::Closed),
            Ok(read) => bytes = &mut bytes[read..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable().await.map_err(|_| BadHeader::Closed)?;
            }
            Err(_) => return Err(BadHeader::Closed),
        }
    }
    Ok(())
}

/// Parses the first bytes of a connection.
pub(super) fn parse(bytes: &[u8], version: ProxyVersion) -> Result<Parsed, BadHeader> {
    let begins_with = |prefix: &[u8]| {
        let length = prefix.len().min(bytes.len());
        bytes[..length] == prefix[..length]
    };
    match version {
        ProxyVersion::V1 | ProxyVersion::Any if begins_with(V1_PREFIX) => parse_v1(bytes),
        ProxyVersion::V2 | ProxyVersion::Any if begins_with(V2_SIGNATURE) => parse_v2(bytes),
        ProxyVersion::V1 | ProxyVersion::V2 | ProxyVersion::Any => Err(BadHeader::Malformed),
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let first = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = first.windows(2).position(|pair| pair == b"\r\n") else {
        // A line end or a byte of another protocol within the line can be refused before it is complete.
        let is_text = first
            .iter()
            .enumerate()
            .all(|(at, byte)| matches!(byte, b' '..=b'~') || (*byte == b'\r' && at + 1 == first.len()));
        return match is_text {
            false => Err(BadHeader::Malformed),
            true if first.len() == V1_BYTES_MAX => Err(BadHeader::TooLong),
            true => Ok(Parsed::Incomplete),
        };
    };
    // What follows UNKNOWN is ignored, but has to be text: otherwise the result would depend on how the line is divided
    // on its way.
    let line = &first[..end];
    if !line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(BadHeader::Malformed);
    }
    let line = std::str::from_utf8(line).map_err(|_| BadHeader::Malformed)?;
    let source = v1_source(line).ok_or(BadHeader::Malformed)?;
    Ok(Parsed::Complete { length: end + 2, source })
}

/// The client's address in a line of version 1; `None` if the line is malformed.
fn v1_source(line: &str) -> Option<Option<IpAddr>> {
    let rest = line.strip_prefix("PROXY ")?;
    // What follows UNKNOWN is to be ignored.
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = rest.split(' ');
    let mut next = || words.next();
    let (family, source, destination, ports) = (next()?, next()?, next()?, [next()?, next()?]);
    if words.next().is_some() || !ports.into_iter().all(is_port) {
        return None;
    }
    match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            Some(Some(source.parse::<Ipv4Addr>().ok()?.into()))
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            Some(Some(source.parse::<Ipv6Addr>().ok()?.into()))
        }
        _ => None,
    }
}

/// Whether this is a decimal port without a sign or leading zeros.
fn is_port(text: &str) -> bool {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let is_proxied = match bytes.get(12) {
        None => return Ok(Parsed::Incomplete),
        Some(0x20) => false, // LOCAL: the load balancer's own connection, such as a health check
        Some(0x21) => true,
        Some(_) => return Err(BadHeader::Malformed),
    };
    let address_bytes = match bytes.get(13) {
        None => return Ok(Parsed::Incomplete),
        Some(0x00) => 0,   // the protocol is not specified
        Some(0x11) => 12,  // TCP over IPv4
        Some(0x21) => 36,  // TCP over IPv6
        Some(0x31) => 216, // a stream of Unix sockets
        // LOCAL says nothing about the client, so its family is ignored.
        Some(_) if !is_proxied => 0,
        Some(_) => return Err(BadHeader::Malformed),
    };
    let Some(length) = bytes.get(14..16) else { return Ok(Parsed::Incomplete) };
    let following = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let length = V2_FIXED_BYTES + following;
    if is_proxied && following < address_bytes {
        return Err(BadHeader::Malformed);
    }
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(BadHeader::TooLong);
    }
    // What follows the addresses (TLVs) is skipped.
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Incomplete) };
    let source = match (is_proxied, address_bytes, &header[V2_FIXED_BYTES..]) {
        (true, 12, [a, b, c, d, ..]) => Some(Ipv4Addr::new(*a, *b, *c, *d).into()),
        (true, 36, addresses) => addresses.first_chunk::<16>().map(|source| Ipv6Addr::from(*source).into()),
        _ => None,
    };
    Ok(Parsed::Complete { length, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn v2(command: u8, family: u8, following: &[u8]) -> Vec<u8> {
        let length = u16::try_from(following.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[0x20 | command, family], &length, following].concat()
    }

    fn of_ipv4(source: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
        v2(1, 0x11, &[&source[..], &[192, 0, 2, 1, 0x30, 0x39, 0x01, 0xbb], tlvs].concat())
    }

    fn of_ipv6(source: Ipv6Addr, tlvs: &[u8]) -> Vec<u8> {
        v2(1, 0x21, &[&source.octets()[..], &[0; 16], &[0x30, 0x39, 0x01, 0xbb], tlvs].concat())
    }

    /// Headers of both versions, with the address that each names.
    fn headers() -> impl Strategy<Value = (Vec<u8>, Option<IpAddr>)> {
        let tlvs = proptest::collection::vec(any::<u8>(), 0..300);
        let text = proptest::string::string_regex("[ -~]{0,90}").unwrap();
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>()).prop_map(|(source, port)| {
                let source = Ipv4Addr::from(source);
                let line = format!("PROXY TCP4 {source} 255.255.255.255 {port} 65535\r\n");
                (line.into_bytes(), Some(source.into()))
            }),
            (any::<[u8; 16]>(), any::<u16>()).prop_map(|(source, port)| {
                let source = Ipv6Addr::from(source);
                let line = format!("PROXY TCP6 {source} ::1 {port} 0\r\n");
                (line.into_bytes(), Some(source.into()))
            }),
            text.prop_map(|text| (format!("PROXY UNKNOWN {text}\r\n").into_bytes(), None)),
            (any::<[u8; 4]>(), tlvs.clone()).prop_map(|(a, tlvs)| (of_ipv4(a, &tlvs), Some(Ipv4Addr::from(a).into()))),
            (any::<[u8; 16]>(), tlvs.clone())
                .prop_map(|(a, tlvs)| (of_ipv6(a.into(), &tlvs), Some(Ipv6Addr::from(a).into()))),
            (any::<u8>(), tlvs.clone()).prop_map(|(family, tlvs)| (v2(0, family, &tlvs), None)),
            tlvs.clone().prop_map(|tlvs| (v2(1, 0x00, &tlvs), None)),
            tlvs.prop_map(|tlvs| (v2(1, 0x31, &[&[0; 216][..], &tlvs].concat()), None)),
        ]
    }

    proptest! {
        #[test]
        fn the_end_of_a_header_does_not_depend_on_what_follows(
            (header, source) in headers(),
            rest in proptest::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
        ) {
            let whole = [&header[..], &rest].concat();
            prop_assert_eq!(
                parse(&whole, ProxyVersion::Any),
                Ok(Parsed::Complete { length: header.len(), source })
            );
            let part = &header[..at.index(header.len())];
            prop_assert_eq!(parse(part, ProxyVersion::Any), Ok(Parsed::Incomplete));
            let (own, other) = match header[0] {
                b'P' => (ProxyVersion::V1, ProxyVersion::V2),
                _ => (ProxyVersion::V2, ProxyVersion::V1),
            };
            prop_assert!(parse(&whole, own).is_ok());
            prop_assert_eq!(parse(&whole, other), Err(BadHeader::Malformed));
        }

        #[test]
        fn parsing_never_panics_nor_ends_beyond_the_input(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for prefix in [&b""[..], V1_PREFIX, b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", V2_SIGNATURE, &v2(1, 0x11, &[])[..14]] {
                let bytes = [prefix, &bytes].concat();
                if let Ok(Parsed::Complete { length, .. }) = parse(&bytes, ProxyVersion::Any) {
                    prop_assert!(length <= bytes.len() && length <= PROXY_HEADER_BYTES_MAX);
                }
            }
        }

        #[test]
        fn one_changed_byte_of_the_prefix_is_refused(
            at in 0_usize..6,
            byte in any::<u8>(),
        ) {
            let mut line = b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n".to_vec();
            prop_assume!(line[at] != byte);
            line[at] = byte;
            prop_assert_eq!(parse(&line, ProxyVersion::Any), Err(BadHeader::Malformed));
        }
    }

    #[test]
    fn anything_but_an_exact_header_is_refused() {
        for line in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
            "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4\t1.2.3.4",
            "PROXY TCP4 1.2.3.4\r5.6.7.8 1 2\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(parse(line.as_bytes(), ProxyVersion::Any), Err(BadHeader::Malformed), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(long.len(), V1_BYTES_MAX);
        assert!(matches!(parse(long.as_bytes(), ProxyVersion::V1), Ok(Parsed::Complete { .. })));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert_eq!(parse(longer.as_bytes(), ProxyVersion::V1), Err(BadHeader::TooLong));
        let longest = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(parse(longest.as_bytes(), ProxyVersion::V1), Err(BadHeader::TooLong));
        for (command, family, following) in [(2, 0x11, 12), (1, 0x11, 11), (1, 0x21, 35), (1, 0x31, 215), (1, 0x12, 12)]
        {
            let header = v2(command, family, &vec![0; following]);
            assert_eq!(parse(&header, ProxyVersion::V2), Err(BadHeader::Malformed), "{command} {family:x} {following}");
        }
        let mut version_1 = of_ipv4([0; 4], &[]);
        version_1[12] = 0x11;
        assert_eq!(parse(&version_1, ProxyVersion::V2), Err(BadHeader::Malformed));
        let room = PROXY_HEADER_BYTES_MAX - V2_FIXED_BYTES;
        assert!(matches!(parse(&v2(0, 0, &vec![0; room]), ProxyVersion::V2), Ok(Parsed::Complete { .. })));
        // Refused as soon as its length is known.
        assert_eq!(parse(&v2(0, 0, &vec![0; room + 1])[..16], ProxyVersion::V2), Err(BadHeader::TooLong));
    }

    /// The bytes after the header are still in the socket, however the header was cut into segments.
    #[tokio::test]
    async fn nothing_behind_the_header_is_consumed() {
        let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 443\r\n".to_vec();
        for header in [line, of_ipv4([192, 0, 2, 7], &[3; 900])] {
            for segment in [1, 7, header.len(), header.len() + 4] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                client.set_nodelay(true).unwrap();
                let (mut socket, _) = listener.accept().await.unwrap();
                let bytes = [&header[..], b"rest"].concat();
                let sending = async {
                    for part in bytes.chunks(segment) {
                        client.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                };
                let (source, ()) = tokio::join!(read(&socket, ProxyVersion::Any), sending);
                assert_eq!(source, Ok(Some([192, 0, 2, 7].into())));
                let mut rest = [0; 4];
                socket.read_exact(&mut rest).await.unwrap();
                assert_eq!(&rest, b"rest");
            }
        }
    }
}
