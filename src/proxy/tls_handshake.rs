//! The TLS handshake of a new client connection.
//!
//! Always true: a handshake that fails is answered with an alert at most, never with plaintext; each counts as an open
//! connection, which bounds the number of handshakes. None waits for another, so that a client that stops in the middle
//! of its handshake delays nobody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{
    CertificateError, Error, InvalidMessage, PeerIncompatible, ProtocolVersion, ServerConfig, ServerConnection,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::raw_socket::LINGER_BYTES_MAX;
use super::tls_stream::SocketIo;

/// Why a handshake failed: the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeFailure {
    /// The client closed the connection.
    Closed,
    /// The first bytes are not TLS, such as plain HTTP.
    NotTls,
    /// The client offers no version that the listener accepts.
    Version,
    /// The client and this process share no cipher suite, group or signature scheme.
    NoCommonParameters,
    /// The client offers application protocols, and none that is served.
    Protocol,
    /// The client has no certificate, and must have one.
    NoClientCertificate,
    /// The client's certificate has expired.
    ClientCertificateExpired,
    /// The client's certificate is not accepted for another reason.
    ClientCertificate,
    /// The client refused, for example because it does not trust the certificate.
    Alert,
    /// Any other violation of the protocol.
    Malformed,
}

impl HandshakeFailure {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            HandshakeFailure::Closed => "closed",
            HandshakeFailure::NotTls => "not_tls",
            HandshakeFailure::Version => "version",
            HandshakeFailure::NoCommonParameters => "no_common_parameters",
            HandshakeFailure::Protocol => "protocol",
            HandshakeFailure::NoClientCertificate => "no_client_certificate",
            HandshakeFailure::ClientCertificateExpired => "client_certificate_expired",
            HandshakeFailure::ClientCertificate => "client_certificate",
            HandshakeFailure::Alert => "alert",
            HandshakeFailure::Malformed => "malformed",
        }
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                Self::NotTls
            }
            // Clients of TLS 1.1 and older do not send signature algorithms.
            Error::PeerIncompatible(
                PeerIncompatible::SignatureAlgorithmsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Self::Version,
            Error::PeerIncompatible(_) => Self::NoCommonParameters,
            Error::NoApplicationProtocol => Self::Protocol,
            Error::NoCertificatesPresented => Self::NoClientCertificate,
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                Self::ClientCertificateExpired
            }
            Error::InvalidCertificate(_) => Self::ClientCertificate,
            Error::AlertReceived(_) => Self::Alert,
            _ => Self::Malformed,
        }
    }
}

/// The name of a version, as a label.
pub(super) fn version_name(connection: &ServerConnection) -> &'static str {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "tls1.3",
        _ => "tls1.2",
    }
}

/// A connection after its handshake.
pub(super) struct Handshaken {
    pub(super) connection: ServerConnection,
    /// Whether the client has already sent `close_notify`.
    pub(super) has_peer_closed: bool,
}

/// Performs the handshake. After an error the socket may only be closed.
pub(super) async fn handshake(
    socket: &TcpStream,
    config: Arc<ServerConfig>,
) -> Result<Handshaken, (HandshakeFailure, String)> {
    let closed = |error: io::Error| (HandshakeFailure::Closed, error.to_string());
    let mut connection =
        ServerConnection::new(config).map_err(|error| (HandshakeFailure::Malformed, error.to_string()))?;
    let mut has_peer_closed = false;
    loop {
        while connection.wants_write() {
            match connection.write_tls(&mut SocketIo(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await.map_err(closed)?,
                Err(error) => return Err(closed(error)),
            }
        }
        if !connection.is_handshaking() {
            return Ok(Handshaken { connection, has_peer_closed });
        }
        match connection.read_tls(&mut SocketIo(socket)) {
            Ok(0) => return Err((HandshakeFailure::Closed, "the client closed the connection".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable().await.map_err(closed)?;
                continue;
            }
            Err(error) => return Err(closed(error)),
        }
        match connection.process_new_packets() {
            Ok(state) => has_peer_closed = state.peer_has_closed(),
            Err(error) => {
                // Sends the alert, which is lost if the client takes no bytes.
                while connection.wants_write() && connection.write_tls(&mut SocketIo(socket)).is_ok_and(|sent| sent > 0)
                {
                }
                return Err((HandshakeFailure::of(&error), error.to_string()));
            }
        }
    }
}

/// Closes a socket on which the client may still be sending, without a reset that could destroy the alert on its way.
pub(super) async fn close(socket: &TcpStream, within: Duration) {
    let discard = async {
        let mut discarded = 0;
        let mut waste = [0_u8; 4 << 10];
        while discarded < LINGER_BYTES_MAX && socket.readable().await.is_ok() {
            match socket.try_read(&mut waste) {
                Ok(0) => return,
                Ok(read) => discarded += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    if rustix::net::shutdown(socket, rustix::net::Shutdown::Write).is_ok() {
        let _ = timeout(within, discard).await; // it ends at the time limit, or when the client closes
    }
}
