//! Certificates: trust anchors, our own, and the message if one is not trusted (A2).

use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnectorBuilder, SslRef};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509NameRef, X509Ref, X509VerifyResult};

use super::settings::{ClientIdentity, Peer, Roots, TlsError, TlsSettings, Verify};
use crate::time;

/// Where systems keep their root certificates, which a static OpenSSL does not know; `SSL_CERT_FILE` and `SSL_CERT_DIR`
/// take precedence. The paths are those of Go's crypto/x509 (`root_linux.go`).
const ROOT_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];
const ROOT_FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The most names of a certificate, or unreadable blocks of a bundle, that a message shows.
const MAX_SHOWN: usize = 10;

/// The certificates of a PEM bundle.
pub struct Bundle {
    /// The readable certificates; at least one.
    pub certificates: Vec<X509>,
    /// The errors of the other blocks.
    pub errors: Vec<String>,
}

/// All certificates in a PEM text. It is an error if none is readable.
pub fn bundle(pem: &[u8], what: &str) -> Result<Bundle, TlsError> {
    let error = |why: &str| Err(TlsError(format!("{what}: {why}")));
    let text = String::from_utf8_lossy(pem);
    let mut found = Bundle { certificates: Vec::new(), errors: Vec::new() };
    let mut blocks = 0usize;
    for block in text.split("-----BEGIN ").skip(1) {
        let Some((label, _)) = block.split_once("-----") else { continue };
        if !matches!(label, "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") {
            continue;
        }
        blocks += 1;
        let end = format!("-----END {label}-----");
        let whole = block.find(&end).map(|at| format!("-----BEGIN {}\n", &block[..at + end.len()]));
        let certificate = whole.as_ref().and_then(|it| X509::from_pem(it.as_bytes()).ok());
        match certificate {
            Some(certificate) => found.certificates.push(certificate),
            None if whole.is_none() => found.errors.push(format!("certificate block {blocks} has no end")),
            None => found.errors.push(format!("certificate block {blocks} is unreadable")),
        }
    }
    found.errors.truncate(MAX_SHOWN);
    match (found.certificates.is_empty(), blocks) {
        (false, _) => Ok(found),
        (true, 0) if X509::from_der(pem).is_ok() => {
            error("DER instead of PEM; convert it with `openssl x509 -inform der`")
        }
        (true, 0) => error("no certificate found; it must be PEM, as `openssl x509` prints it"),
        (true, _) => error("no readable certificate found"),
    }
}

/// Our own certificate chain and key.
pub struct OwnCertificate {
    leaf: X509,
    chain: Vec<X509>,
    key: PKey<Private>,
}

/// Decodes a certificate chain and its key. An encrypted key is rejected; the callback keeps OpenSSL from asking for its
/// password on the terminal.
pub fn identity(identity: &ClientIdentity) -> Result<OwnCertificate, TlsError> {
    let bundle = bundle(&identity.chain, "client certificate")?;
    if let Some(error) = bundle.errors.first() {
        return Err(TlsError(format!("client certificate: {error}")));
    }
    let mut chain = bundle.certificates;
    let leaf = chain.remove(0);
    let unreadable =
        |_| TlsError("failed to read the client key; it must be a PEM private key without a password".to_owned());
    let key = PKey::private_key_from_pem_callback(identity.key.expose().as_bytes(), |_| Ok(0)).map_err(unreadable)?;
    if !leaf.public_key().is_ok_and(|it| it.public_eq(&key)) {
        return Err(TlsError("client certificate and client key do not match".to_owned()));
    }
    Ok(OwnCertificate { leaf, chain, key })
}

impl OwnCertificate {
    /// When it ends.
    pub(super) fn end(&self) -> Option<u64> {
        end_of(&self.leaf)
    }

    /// Sends it if the peer asks for it.
    pub(super) fn put(&self, builder: &mut SslConnectorBuilder) -> Result<(), openssl::error::ErrorStack> {
        builder.set_certificate(&self.leaf)?;
        builder.set_private_key(&self.key)?;
        self.chain.iter().try_for_each(|it| builder.add_extra_chain_cert(it.clone()))
    }
}

/// Trusts these certificates and no others.
pub(super) fn trust(roots: &[X509], builder: &mut SslConnectorBuilder) -> Result<(), openssl::error::ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    roots.iter().try_for_each(|it| store.add_cert(it.clone()))?;
    builder.set_cert_store(store.build());
    Ok(())
}

/// Trusts the system's roots. An unreadable file shows when a certificate is verified.
pub(super) fn trust_system(builder: &mut SslConnectorBuilder) {
    let given = |name: &str| std::env::var_os(name).filter(|it| Path::new(it).exists());
    let file =
        given("SSL_CERT_FILE").or_else(|| ROOT_FILES.iter().find(|it| Path::new(it).exists()).map(|it| (*it).into()));
    if let Some(file) = file {
        let _ = builder.load_verify_locations(Some(Path::new(&file)), None);
    }
    let folders = given("SSL_CERT_DIR").into_iter().chain(ROOT_FOLDERS.map(Into::into));
    for folder in folders.filter(|it| Path::new(it).is_dir()) {
        let _ = builder.load_verify_locations(None, Some(Path::new(&folder)));
    }
    openssl_clear_errors();
}

/// Errors left in OpenSSL's queue would be taken for the reason of the next failure.
fn openssl_clear_errors() {
    drop(openssl::error::ErrorStack::get());
}

/// The SHA-256 of a certificate's DER.
pub(super) fn fingerprint(certificate: &X509) -> Option<[u8; 32]> {
    certificate.digest(MessageDigest::sha256()).ok()?.as_ref().try_into().ok()
}

/// When a certificate ends, in seconds since 1970, at least 1; nothing if it never does.
pub fn end_of(certificate: &X509Ref) -> Option<u64> {
    let left = Asn1Time::from_unix(0).ok()?.diff(certificate.not_after()).ok()?;
    let seconds = i64::from(left.days) * 86_400 + i64::from(left.secs);
    time::valid_end(seconds.max(0).unsigned_abs())
}

/// A text out of a certificate, as a part of a message.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(200).collect::<String>())
}

fn name_of(name: &X509NameRef) -> String {
    let parts = name.entries().filter_map(|it| it.data().to_string().ok());
    quoted(&parts.collect::<Vec<_>>().join(", "))
}

/// The names that a certificate is valid for.
fn names_in(certificate: &X509) -> String {
    let alternatives = certificate.subject_alt_names();
    let address = |bytes: &[u8]| -> Option<String> {
        let v4: Option<[u8; 4]> = bytes.try_into().ok();
        let v6: Option<[u8; 16]> = bytes.try_into().ok();
        v4.map(|it| std::net::Ipv4Addr::from(it).to_string())
            .or_else(|| v6.map(|it| std::net::Ipv6Addr::from(it).to_string()))
    };
    let all = alternatives.iter().flatten();
    let mut names: Vec<String> =
        all.filter_map(|it| it.dnsname().map(quoted).or_else(|| it.ipaddress().and_then(address))).collect();
    if names.is_empty() {
        // If there are no others, OpenSSL uses the common name.
        let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        let common = common.and_then(|it| it.data().to_string().ok()).map(|it| quoted(&it));
        return common.unwrap_or_else(|| "none".to_owned());
    }
    let more = names.len().saturating_sub(MAX_SHOWN);
    names.truncate(MAX_SHOWN);
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}

/// A certificate for a message.
pub(super) fn describe(certificate: &X509) -> String {
    let hex = fingerprint(certificate).unwrap_or_default().map(|byte| format!("{byte:02X}")).join(":");
    format!(
        "subject {}, issuer {}, names {}, valid from {} to {}, SHA-256 fingerprint {hex}",
        name_of(certificate.subject_name()),
        name_of(certificate.issuer_name()),
        names_in(certificate),
        certificate.not_before(),
        certificate.not_after(),
    )
}

/// Why a certificate is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsRejection {
    /// Its issuer is not among the trusted ones.
    Issuer,
    /// It is for other names.
    Name,
    /// It is not valid now.
    Time,
    /// It has none of the trusted fingerprints.
    Fingerprint,
    /// Something else.
    Other,
}

impl TlsRejection {
    /// The result of OpenSSL's verification of this connection, if it failed.
    pub(super) fn of(ssl: &SslRef) -> Option<(TlsRejection, &'static str)> {
        let result = ssl.verify_result();
        if result == X509VerifyResult::OK {
            return None;
        }
        // The numbers are those of OpenSSL's x509_vfy.h, which never change.
        let rejection = match result.as_raw() {
            2 | 18..=21 => TlsRejection::Issuer,
            62..=64 => TlsRejection::Name,
            9 | 10 => TlsRejection::Time,
            _ => TlsRejection::Other,
        };
        Some((rejection, result.error_string()))
    }

    /// What to do about it, beyond the present settings.
    pub(super) fn remedy(self, settings: &TlsSettings) -> String {
        let (ca, name) = match settings.peer {
            Peer::Unnamed => return String::new(),
            Peer::Apic => ("--apic-ca", "use one of its names in --apic"),
            Peer::Kubernetes => {
                ("certificate-authority-data", "use one of its names as the server or as tls-server-name")
            }
        };
        let pin = if settings.peer == Peer::Apic { ", or its fingerprint with --apic-fingerprint" } else { "" };
        match (self, &settings.roots) {
            (TlsRejection::Fingerprint, _) => {
                "compare it with the APIC's own fingerprint, then set it with --apic-fingerprint".to_owned()
            }
            (TlsRejection::Time, _) => "renew it on the server, or check the clock of this host".to_owned(),
            (TlsRejection::Name, _) => match &settings.server_name {
                Some(given) => format!("tls-server-name {given:?} is none of its names; correct it"),
                None => format!("{name}{pin}"),
            },
            (_, Roots::System) => format!("to trust it, give its CA with {ca}{pin}"),
            (_, Roots::Pem(_)) => {
                format!("the CA of {ca} did not issue it; give the CA that did, or the certificate itself{pin}")
            }
        }
    }
}

/// Whether the peer's certificate passes a check by fingerprints, if there is one.
pub(super) fn is_pinned(leaf: Option<&X509>, verify: &Verify) -> bool {
    let Verify::Fingerprints(trusted) = verify else { return true };
    leaf.and_then(fingerprint).is_some_and(|it| trusted.contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T10: ends of certificates, also of those that never end or have ended before 1970.
    #[test]
    fn ends_of_certificates() {
        for (text, expected) in [
            ("20261123054351Z", Some(1_795_412_631)),
            ("99991231235958Z", Some(253_402_300_798)),
            ("99991231235959Z", None),
            ("19500101000000Z", Some(1)),
        ] {
            let mut builder = X509::builder().unwrap();
            builder.set_not_after(&Asn1Time::from_str(text).unwrap()).unwrap();
            assert_eq!(end_of(&builder.build()), expected, "{text}");
        }
    }
}
