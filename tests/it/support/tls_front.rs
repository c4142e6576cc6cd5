//! TLS in front of a service that speaks none.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use pointsman::listener::crypto;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::LOCAL;
use super::certificates::Issued;

/// A TLS listener in front of a service without TLS; dropping it stops it.
pub struct TlsFront {
    address: SocketAddr,
    target: Arc<OnceLock<String>>,
    task: tokio::task::AbortHandle,
}

impl TlsFront {
    /// Listens with this certificate. Connections are closed until [`TlsFront::lead_to`].
    pub async fn start(issued: &Issued) -> Self {
        let certificate = CertificateDer::from_pem_slice(issued.cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(crypto());
        let config = config.with_safe_default_protocol_versions().expect("versions of TLS");
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let (address, target) = (listener.local_addr().expect("an address"), Arc::<OnceLock<String>>::default());
        let leads_to = target.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (accepting, target) = (acceptor.accept(stream), leads_to.get().cloned());
                tokio::spawn(async move {
                    let (Some(target), Ok(mut stream)) = (target, accepting.await) else { return };
                    let Ok(mut service) = TcpStream::connect(target).await else { return };
                    let _ = copy_bidirectional(&mut stream, &mut service).await;
                });
            }
        });
        Self { address, target, task: task.abort_handle() }
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Passes connections on to the service at this URL.
    pub fn lead_to(&self, url: &str) {
        self.target.set(url.trim_start_matches("http://").to_owned()).expect("only once");
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}
