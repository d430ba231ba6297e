//! Requests that are signed with the private key of a user's certificate, and the certificates. Sources: the clients of
//! aci-containers (`apic_crypto.go`, `apicapi.go`) and cisco.aci (`cert_auth`); texts of refused signatures from
//! terraform-provider-aci#1148 and ansible#50913.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::sign::Verifier;
use openssl::x509::X509;

use super::error::ApiError;
use super::variants::Variants;
use crate::net::{Request, percent_decoded};

/// The certificates of users, by DN.
#[derive(Debug, Default)]
pub struct Certificates(pub BTreeMap<String, X509>);

/// Whose signature a request carries.
#[derive(Debug)]
pub struct Signer {
    /// The user.
    pub user: String,
    /// `APIC-WebSocket-Session`: the token of a websocket.
    pub websocket: Option<String>,
}

impl Certificates {
    /// Who signed a request; nothing if it is not signed. `ahead`: by how many seconds the controllers' clock is ahead.
    pub fn signer(&self, request: &Request, variants: &Variants, ahead: i64) -> Result<Option<Signer>, ApiError> {
        let lines = request.headers.iter().filter(|(name, _)| name == "cookie").flat_map(|(_, line)| line.split(';'));
        let cookies: BTreeMap<&str, &str> = lines.filter_map(|it| it.trim().split_once('=')).collect();
        let cookie = |name: &str| cookies.get(name).copied();
        let Some(signature) = cookie("APIC-Request-Signature") else { return Ok(None) };
        if cookie("APIC-Certificate-Algorithm") != Some("v1.0")
            || cookie("APIC-Certificate-Fingerprint") != Some("fingerprint")
        {
            return Err(ApiError::no_cookie());
        }
        let dn = cookie("APIC-Certificate-DN").unwrap_or_default();
        let unknown = || ApiError::unknown_certificate(variants);
        let certificate = self.0.get(dn).ok_or_else(unknown)?;
        refuse_if_not_valid(certificate, variants, ahead)?;
        if !is_by(certificate, signature, request, variants) {
            return Err(ApiError::new(403, 403, "bad signature"));
        }
        let user = dn.split('/').find_map(|it| it.strip_prefix("user-")).unwrap_or_default().to_owned();
        Ok(Some(Signer { user, websocket: cookie("APIC-WebSocket-Session").map(str::to_owned) }))
    }
}

/// What a POST of `aaaUserCert` gives a user; nothing if it is about another object, because users are not simulated.
pub fn posted(dn: &str, body: &[u8]) -> Option<X509> {
    let certificate = dn.strip_prefix("uni/userext/user-").is_some_and(|it| it.contains("/usercert-"));
    let body: serde_json::Value = serde_json::from_slice(body).ok().filter(|_| certificate)?;
    X509::from_pem(body["aaaUserCert"]["attributes"]["data"].as_str()?.as_bytes()).ok()
}

fn refuse_if_not_valid(certificate: &X509, variants: &Variants, ahead: i64) -> Result<(), ApiError> {
    let ours = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let now = Asn1Time::from_unix(ours + ahead).unwrap();
    let flaw = if certificate.not_after() < now {
        "certificate has expired"
    } else if certificate.not_before() > now {
        "certificate is not yet valid"
    } else {
        return Ok(());
    };
    Err(if variants.certificate_flaws_named { ApiError::new(403, 403, flaw) } else { ApiError::no_cookie() })
}

/// RSA with SHA-256 (PKCS #1 v1.5) over method, target and body.
fn is_by(certificate: &X509, signature: &str, request: &Request, variants: &Variants) -> bool {
    let Ok(signature) = openssl::base64::decode_block(signature) else { return false };
    let target = if variants.signs_as_sent { request.target.clone() } else { percent_decoded(&request.target) };
    let text = [request.method.as_bytes(), target.as_bytes(), &request.body].concat();
    let key = certificate.public_key().unwrap();
    Verifier::new(MessageDigest::sha256(), &key).unwrap().verify_oneshot(&signature, &text).unwrap_or(false)
}
