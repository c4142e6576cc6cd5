//! `tls:` of a service: which certificates are trusted, and which one is shown to the service.
//!
//! Always true: accepted settings can be used for handshakes: our key belongs to our certificate, which has not
//! expired, and the trusted certificates could be read.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::listener_tls::{Context, only_tls13, read, shown};
use crate::flag::ServiceTls;
use crate::flag::file::{ServiceTlsDraft, server_name};
use crate::listener::{Certificate, CertificateError, crypto, read_certificates, validity};
use crate::problem::{Problems, Site};
use crate::transport::{ClientTls, platform_certificates};

/// The certificates that the machine trusts, read at most once for all services of a set.
#[derive(Default)]
pub(super) struct PlatformRoots(Option<Result<Vec<CertificateDer<'static>>, String>>);

/// Builds what handshakes with a service need.
pub(super) fn build(
    draft: &ServiceTlsDraft,
    site: &Site,
    platform_roots: &mut PlatformRoots,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Option<ServiceTls> {
    let mut own = Problems::default();
    let tls = build_checked(draft, site, platform_roots, context, &mut own);
    let has_errors = own.has_errors();
    problems.extend(own);
    tls.filter(|_| !has_errors)
}

fn build_checked(
    draft: &ServiceTlsDraft,
    site: &Site,
    platform_roots: &mut PlatformRoots,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Option<ServiceTls> {
    let ServiceTlsDraft { ca, cert, key, server_name: name, min_version } = draft;
    let mut digest = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        digest.update(&bytes.len().to_be_bytes()).update(bytes);
    };
    let only_tls13 = only_tls13(min_version.as_ref(), &site.key("min_version"), problems);
    let name = name.as_ref().map(|text| server_name(text, &site.key("server_name"), problems));
    let (trusted, ca_site) = match ca {
        Some(file) => (trusted(file, &site.key("ca"), context, problems), site.key("ca")),
        None => (platform_trusted(site, platform_roots, context, problems), site.clone()),
    };
    for certificate in trusted.iter().flatten() {
        add(certificate);
    }
    add(&[u8::from(only_tls13 == Some(true)), u8::from(ca.is_some())]);
    add(format!("{name:?}").as_bytes());
    let own = match (cert, key) {
        (Some(cert), Some(key)) => {
            let files =
                (read(cert, &site.key("cert"), context, problems), read(key, &site.key("key"), context, problems));
            match files {
                (Some(chain), Some(bytes)) => {
                    add(&chain);
                    add(&bytes);
                    own_certificate((cert, &chain), (key, &bytes), site, context, problems)
                }
                _ => None,
            }
        }
        _ => None,
    };
    let only_tls13 = only_tls13?;
    let name = match name {
        Some(name) => Some(name?),
        None => None,
    };
    // Files may be missing if that is allowed, as in `check`; then nothing is sent.
    let has_ca = ca.is_some() && trusted.is_some();
    let own = own.map(|certificate| certificate.certified_key());
    let client = ClientTls { trusted: trusted.unwrap_or_default(), own, only_tls13 };
    match client.config(crypto()) {
        // Not an error without `ca`: the machine may trust certificates, for other programs, that cannot be used here.
        Ok((_, unusable)) if has_ca && !unusable.is_empty() => {
            let file = context.dir.join(ca.as_deref().unwrap_or_default());
            let message =
                format!("the file `{}` holds a certificate that cannot be used: {}", file.display(), unusable[0]);
            problems.error(&ca_site, message);
            None
        }
        Ok((config, _)) => Some(ServiceTls::new(config, name, digest.finalize().into())),
        Err(message) => {
            problems.error(site, format!("TLS cannot be used: {message}"));
            None
        }
    }
}

/// The certificates that the file under `ca` holds.
fn trusted(
    file: &str,
    site: &Site,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read(file, site, context, problems)?;
    let path = context.dir.join(file);
    let hint = "it holds the certificates of those who issue the service's certificate";
    let certificates = match read_certificates(&bytes) {
        Ok(certificates) => certificates,
        Err(message) => {
            problems.error(site, format!("the file `{}` {message}", path.display())).hint(hint);
            return None;
        }
    };
    let now = SystemTime::now();
    let mut expired = Vec::new();
    for certificate in &certificates {
        match validity(certificate) {
            Ok((_, not_after)) => expired.extend((not_after < now).then_some(not_after)),
            Err(message) => drop(problems.error(site, format!("the file `{}` {message}", path.display()))),
        }
    }
    if let Some(last) = expired.iter().max() {
        let (path, last) = (path.display(), shown(*last));
        if expired.len() == certificates.len() {
            let message =
                format!("the file `{path}` holds only certificates that have expired, the last one at {last}");
            problems.error(site, message).hint("no certificate of the service would be accepted");
        } else {
            let message =
                format!("the file `{path}` also holds certificates that have expired, the last one at {last}");
            problems.warn(site, message);
        }
    }
    Some(certificates)
}

/// The certificates that this machine trusts.
fn platform_trusted(
    site: &Site,
    platform_roots: &mut PlatformRoots,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    match platform_roots.0.get_or_insert_with(platform_certificates) {
        Ok(certificates) => Some(certificates.clone()),
        Err(message) => {
            let hint = "name the file of the trusted certificates: `tls: { ca: FILE }`";
            match context.overrides.secrets_may_be_absent {
                true => problems.warn(site, message.clone()).hint(hint),
                false => problems.error(site, message.clone()).hint(hint),
            };
            None
        }
    }
}

/// Reads our own certificate with its key.
fn own_certificate(
    (cert, chain): (&str, &[u8]),
    (key, key_bytes): (&str, &[u8]),
    site: &Site,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<Certificate> {
    let file = |file: &str| context.dir.join(file).display().to_string();
    let certificate = match Certificate::read(chain, key_bytes, &crypto()) {
        Ok(certificate) => certificate,
        Err(CertificateError { in_key, message, hint }) => {
            let (site, named) = if in_key { (site.key("key"), key) } else { (site.key("cert"), cert) };
            let problem = problems.error(&site, format!("the file `{}` {message}", file(named)));
            if !hint.is_empty() {
                problem.hint(hint);
            }
            return None;
        }
    };
    let now = SystemTime::now();
    if certificate.not_after < now {
        let message = format!("the certificate in `{}` expired at {}", file(cert), shown(certificate.not_after));
        problems.error(&site.key("cert"), message).hint("the service would refuse it: replace both files");
        return None;
    }
    if certificate.not_before > now {
        let message =
            format!("the certificate in `{}` is valid only from {}", file(cert), shown(certificate.not_before));
        problems.error(&site.key("cert"), message).hint("is this machine's clock right?");
        return None;
    }
    Some(certificate)
}
