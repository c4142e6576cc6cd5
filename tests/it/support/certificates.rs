//! Certificates for tests, made when they are needed. Also compiled into the tests of the library.

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};

/// An issuer of certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
}

/// The contents of a certificate.
#[derive(Clone, Default)]
pub struct Subject<'a> {
    /// Its DNS names and IP addresses.
    pub names: &'a [&'a str],
    pub common_name: Option<&'a str>,
    pub organization: Option<&'a str>,
    pub uri: Option<&'a str>,
    /// The years in which its validity begins and ends; `None`: it is valid now.
    pub years: Option<(i32, i32)>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer"))
    }
    /// Its own certificate.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }
    pub fn issue(&self, subject: &Subject<'_>) -> Issued {
        let names: Vec<String> = subject.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in
            [(DnType::OrganizationName, subject.organization), (DnType::CommonName, subject.common_name)]
        {
            if let Some(value) = value {
                params.distinguished_name.push(kind, value);
            }
        }
        if let Some(uri) = subject.uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
        }
        if let Some((from, to)) = subject.years {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Issued { cert: pem("CERTIFICATE", cert.der()), key: pem("PRIVATE KEY", key.serialized_der()) }
    }
    /// A certificate for one DNS name.
    pub fn issue_for(&self, name: &str) -> Issued {
        self.issue(&Subject { names: &[name], common_name: Some(name), ..Subject::default() })
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}
