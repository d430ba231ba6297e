//! Login with the certificate of a user: every request is signed, and there is neither login nor refresh nor logout (A5).
//! The token is that of the websocket, which ties subscriptions to it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl::base64::encode_block;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::Signer;
use openssl::x509::X509;

use super::{Credentials, Identity, Request, TargetForm};
use crate::apic::error::Error;
use crate::metrics::Method;
use crate::net::end_of;
use crate::secret::{Renewable, Secret};
use crate::time::{CLOCK_TOLERANCE, clock_difference};

/// The longest DN of a certificate, in bytes; it goes into every request's head.
const MAX_DN: usize = 256;

/// The certificate of a user, with its private key.
#[derive(Debug)]
pub(super) struct Certificate {
    dn: String,
    key: Renewable,
    /// Whether the APIC compares a signature with the target as it was sent. The clients that sign encoded targets
    /// successfully decode them first, so that is tried first.
    signs_as_sent: AtomicBool,
}

impl Certificate {
    pub(super) fn new(dn: &str, key: Renewable) -> Self {
        Certificate { dn: dn.to_owned(), key, signs_as_sent: AtomicBool::new(false) }
    }
}

impl Credentials for Certificate {
    fn identity(&self) -> Identity {
        Identity::Certificate(self.dn.clone())
    }

    fn secret(&self) -> &Renewable {
        &self.key
    }

    fn open(&self) -> Request<'static> {
        Request::get("/api/webtokenSession.json")
    }

    fn refresh(&self) -> Option<&'static str> {
        None
    }

    fn close(&self) -> Option<Request<'static>> {
        None
    }

    /// `APIC-WebSocket-Session` ties a subscription to the websocket of that token. As aci-containers does it, every
    /// request of the session has it.
    fn cookie(&self, request: &Request<'_>, token: &Secret) -> Result<Option<Secret>, Error> {
        let failed = |why: &str| Error::Unreachable(format!("failed to sign a request: {why}"));
        let key = private_key(&self.key.get()).map_err(failed)?;
        let signature = sign(&key, signed_text(request).as_bytes()).map_err(|error| failed(&error.to_string()))?;
        let session = match token.expose() {
            "" => String::new(),
            token => format!("; APIC-WebSocket-Session={token}"),
        };
        let dn = &self.dn;
        Ok(Some(Secret::new(format!(
            "APIC-Request-Signature={signature}; APIC-Certificate-Algorithm=v1.0; \
             APIC-Certificate-Fingerprint=fingerprint; APIC-Certificate-DN={dn}{session}"
        ))))
    }

    fn forms(&self, target: &str) -> Vec<TargetForm> {
        match (target.contains('%'), self.signs_as_sent.load(Ordering::Relaxed)) {
            (false, _) => vec![TargetForm::AsSent],
            (true, false) => vec![TargetForm::Decoded, TargetForm::AsSent],
            (true, true) => vec![TargetForm::AsSent, TargetForm::Decoded],
        }
    }

    fn prefer(&self, form: TargetForm) {
        self.signs_as_sent.store(form == TargetForm::AsSent, Ordering::Relaxed);
    }

    fn explain(&self, refusal: String, ahead: Option<i64>) -> String {
        let says = |texts: &[&str]| texts.iter().any(|it| refusal.contains(it));
        if says(&["bad signature", "padding"]) {
            return format!("{refusal}; the private key does not belong to the certificate at this DN");
        }
        let clock = match ahead {
            Some(ahead) if ahead.abs() > CLOCK_TOLERANCE => format!(", which is {}", clock_difference(ahead)),
            Some(_) => ", which agrees with ours".to_owned(),
            None => String::new(),
        };
        if says(&["expired", "not yet valid"]) {
            return format!("{refusal}; the certificate is not valid by the clock of the APIC{clock}");
        }
        format!("{refusal}; the user has no certificate at this DN, or it is not valid by the clock of the APIC{clock}")
    }

    fn remedy(&self) -> &'static str {
        "compare the key with the certificate of the user, --apic-certificate-dn with its DN, and its validity with the clock of the APIC"
    }
}

/// What is signed: the method, the target and the body, without anything in between.
fn signed_text(request: &Request<'_>) -> String {
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Delete => "DELETE",
    };
    let target = match request.form {
        TargetForm::AsSent => Cow::Borrowed(request.target),
        TargetForm::Decoded => percent_decoded(request.target),
    };
    format!("{method}{target}{}", request.body)
}

/// RSA with SHA-256 (PKCS #1 v1.5), in base64.
fn sign(key: &PKey<Private>, text: &[u8]) -> Result<String, openssl::error::ErrorStack> {
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    Ok(encode_block(&signer.sign_oneshot_to_vec(text)?))
}

fn percent_decoded(text: &str) -> Cow<'_, str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|it| *first == b'%' && it.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Decodes a private key. The error completes a sentence about its file. The callback keeps OpenSSL from asking for a
/// password on the terminal.
pub fn private_key(pem: &Secret) -> Result<PKey<Private>, &'static str> {
    let text = pem.expose();
    if text.contains("ENCRYPTED") {
        return Err("is encrypted; write the key without a password: `openssl pkey -in OLD -out NEW`");
    }
    if !text.contains("PRIVATE KEY-----") {
        return Err("has no private key; it must be PEM, as `openssl genrsa` prints it");
    }
    let key = PKey::private_key_from_pem_callback(text.as_bytes(), |_| Ok(0));
    match key.map(|key| (key.id(), key)) {
        Ok((Id::RSA, key)) => Ok(key),
        Ok(_) => Err("is not an RSA key; the APIC takes no others"),
        Err(_) => Err("has a private key that cannot be read; it must be PEM, as `openssl genrsa` prints it"),
    }
}

/// When the certificate ends that is in the file of its private key; nothing if there is none. The error completes a sentence
/// about the file.
pub fn end_of_certificate(pem: &Secret, key: &PKey<Private>) -> Result<Option<u64>, &'static str> {
    let text = pem.expose();
    if !text.contains("CERTIFICATE-----") {
        return Ok(None);
    }
    let certificate = X509::from_pem(text.as_bytes()).map_err(|_| "has a certificate that cannot be read")?;
    match certificate.public_key() {
        Ok(public) if public.public_eq(key) => Ok(end_of(&certificate)),
        _ => Err("has a certificate that does not belong to its private key"),
    }
}

/// Whether a text is the DN of a user's certificate. It goes into a header, so nothing that could break out of it is accepted.
pub fn is_certificate_dn(text: &str) -> bool {
    let is_name =
        |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.:@+-".contains(&it));
    let user = text.strip_prefix("uni/userext/");
    let user = user.and_then(|it| it.strip_prefix("user-").or_else(|| it.strip_prefix("appuser-")));
    text.len() <= MAX_DN
        && user.and_then(|it| it.split_once("/usercert-")).is_some_and(|(user, name)| is_name(user) && is_name(name))
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;

    use super::*;

    /// Made by `openssl genrsa 1024` for this test.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBAM0kamzAUoBHh34l\n\
plQIUrz/hR4qg87zj15aTmqkJMlI8SeNgz8Ej0wb3LqO3odZYSg1LuERcYEvR//F\n\
LIc5+vvAXxCMGTnGHVAwt4430f9uJPEnowUngHlVLU08GdZioDKl9mH7+43dC/0I\n\
Xtrfg68FvTBWFG1dQMRgv1Y/o3TBAgMBAAECgYBT7esw1TqryxgPL14ukT0woCYZ\n\
YnGM8S8d/jqI/OEkDRjFAuvIk5gBHoEfPqain5nVdnTYlmdm4C5H4abHKJybOeDR\n\
rnPfPt7uY+z1s3Q9cJAFYCZtX1riwbwfh+359nhMYlh9bf/i70HejCw6i3H7mIS5\n\
17eQ+t81SfAhLeHb8QJBAOe8FrHIjRGKbURo75dcZSnaBmMu+264bjW90RASyDRw\n\
ZNf2ChNbQlB3/gZkz+ZzAYMHDObnUll8VKnHXpCyGJ0CQQDin3xbQBMAOjI6FB2O\n\
68Y8Qjq1N5i8zGpJlGwVcU/OcNppMutRr1yjUoew3MXI1cwbG3kodAJKsdh9IA6K\n\
THl1AkEAt7WpvClEhHpcI1aZUkJCRMp+M9UEKQN3A43Gllp9cu0DVR3NYQkA6nAl\n\
5wW2t3fG5AwL02XhJ+Xj7HCMbGN0FQJAagKTCJiLiuKuVi7MuOuf+tY8YkMUptS0\n\
r6DHgqxT2c0+zlEsdTSkEB5uLRTJTK5+YPvUDFFgNRLGo5mYU6d8dQJBALQw7Vq3\n\
b4OVDAfR7TnHEGD/+XzvNK2zpm6mUsfHeL/n4cSXDquvlLghL/yRdLk12QbVMtsA\n\
gRCAov3vjyia4I8=\n\
-----END PRIVATE KEY-----\n";

    const DN: &str = "uni/userext/user-aci-sync/usercert-one";

    fn certificate() -> Certificate {
        Certificate::new(DN, Renewable::new(Secret::new(KEY)))
    }

    fn pem(bytes: Result<Vec<u8>, openssl::error::ErrorStack>) -> Secret {
        Secret::new(String::from_utf8(bytes.unwrap()).unwrap())
    }

    /// A5: what is signed, and the signatures that `openssl dgst -sha256 -sign KEY | base64` makes of it.
    #[test]
    fn signatures_are_those_of_openssl() {
        let filter = "/api/class/l3extSubnet.json?order-by=l3extSubnet.dn&query-target-filter=eq(l3extSubnet.annotation,%22a%22)";
        let body = r#"{"l3extInstP":{"attributes":{"name":"E"}}}"#;
        let decoded = Request { form: TargetForm::Decoded, ..Request::get(filter) };
        for (request, text, signature) in [
            (Request::get("/api/class/fvTenant.json"), "GET/api/class/fvTenant.json".to_owned(), SIGNATURES[0]),
            (decoded, format!("GET{}", filter.replace("%22", "\"")), SIGNATURES[1]),
            (
                Request::post("/api/mo/uni/tn-T/out-L.json?rsp-subtree=modified", body),
                format!("POST/api/mo/uni/tn-T/out-L.json?rsp-subtree=modified{body}"),
                SIGNATURES[2],
            ),
        ] {
            assert_eq!(signed_text(&request), text);
            let cookie = certificate().cookie(&request, &Secret::default()).unwrap().unwrap();
            assert_eq!(
                cookie.expose(),
                format!(
                    "APIC-Request-Signature={signature}; APIC-Certificate-Algorithm=v1.0; APIC-Certificate-Fingerprint=fingerprint; APIC-Certificate-DN={DN}"
                )
            );
            let with_token = certificate().cookie(&request, &Secret::new("a/+b=")).unwrap().unwrap();
            assert_eq!(with_token.expose(), format!("{}; APIC-WebSocket-Session=a/+b=", cookie.expose()));
        }
        assert_eq!(signed_text(&Request::get(filter)), format!("GET{filter}"));
        assert_eq!(signed_text(&Request::delete("/api/mo/uni/tn-T.json")), "DELETE/api/mo/uni/tn-T.json");
    }

    const SIGNATURES: [&str; 3] = [
        "sA3Kp7tZg79yM5H2ZtCSA0liEyBUcyKh0+wz31PqbU5cTMeK+A6vvLaO/8/kFiYtlImDxSdSwn5CptiDCp0JiKB2txxQHLL8K+6syB6STYJ9yz92lN/7Jx0WSkobtN88gtk1V9MjB7yCuzkqNDLDRW0VjNoIwTKi1KY3Rtg8a74=",
        "cE3QzZAeSzv59bhT8qSXpzn1UzY/yfPtWtDT05gnMXOJRG2nGokRV+fGzjqMklfnzXmuqPOZI8KvOC8GYe5avo3JY6bhn9gIZL734YT7BmJsm6Zjg7OJoHqOdh+/4Zhd073ACID8hxFR6nvRjKLC3LnNWbBDGFPl7/sxSu3YE2E=",
        "EbUsbfZDnVilQENJRy51Bym5js1Fs3psjdrl+m+VOc8YVMhKBA567xyKRj7UN/FvzimrjUS1p6OPkNjikMN5GrcWdHR7ozW58QaFTh4i1eSzrIsf4iVzTg9jhRPyKD+vFDGMy6fkuEFdcVILQ4kSx4rZwpdA8Bc9KaM3LcsqUkY=",
    ];

    /// A5: both forms of a target are signed if they differ, and the one that the APIC took comes first from then on.
    #[test]
    fn forms_of_a_target() {
        use TargetForm::{AsSent, Decoded};
        let certificate = certificate();
        assert_eq!(certificate.forms("/api/mo/uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32].json"), [AsSent]);
        assert_eq!(certificate.forms("/a?b=%22"), [Decoded, AsSent]);
        certificate.prefer(AsSent);
        assert_eq!(certificate.forms("/a?b=%22"), [AsSent, Decoded]);
        certificate.prefer(Decoded);
        assert_eq!(certificate.forms("/a?b=%22"), [Decoded, AsSent]);
        for (text, decoded) in
            [("a%22b%5b", "a\"b["), ("%", "%"), ("%2", "%2"), ("%zz%+1", "%zz%+1"), ("%ff", "%ff"), ("+", "+")]
        {
            assert_eq!(percent_decoded(text), decoded, "{text}");
        }
    }

    /// A5: RSA keys in PKCS#8 and PKCS#1; all others are refused with a sentence that says what to do.
    #[test]
    fn keys() {
        let key = private_key(&Secret::new(KEY)).unwrap();
        let rsa = key.rsa().unwrap();
        assert!(private_key(&pem(rsa.private_key_to_pem())).unwrap().public_eq(&key), "PKCS#1");
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let ec = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        for (secret, why) in [
            (pem(ec.private_key_to_pem_pkcs8()), "is not an RSA key"),
            (pem(ec.ec_key().unwrap().private_key_to_pem()), "is not an RSA key"),
            (pem(key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"x")), "is encrypted"),
            (pem(rsa.private_key_to_pem_passphrase(Cipher::aes_256_cbc(), b"x")), "is encrypted"),
            (pem(key.public_key_to_pem()), "has no private key"),
            (Secret::new("hunter2"), "has no private key"),
            (Secret::new(KEY.replace("MIIC", "MIID")), "cannot be read"),
            (Secret::default(), "has no private key"),
        ] {
            let error = private_key(&secret).map(drop).unwrap_err();
            assert!(error.contains(why), "{error}: {why}");
        }
    }

    /// A5, T10: the file of the key may hold its certificate; another one, or one that cannot be read, is refused.
    #[test]
    fn certificates_beside_their_keys() {
        let key = private_key(&Secret::new(KEY)).unwrap();
        let certificate = |key: &PKey<Private>| {
            let mut builder = X509::builder().unwrap();
            builder.set_pubkey(key).unwrap();
            builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
            builder.set_not_after(&Asn1Time::from_unix(2_000_000_000).unwrap()).unwrap();
            builder.sign(key, MessageDigest::sha256()).unwrap();
            String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
        };
        let (own, other) = (certificate(&key), certificate(&PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()));
        let end = |text: &str| {
            let pem = Secret::new(text);
            end_of_certificate(&pem, &private_key(&pem).unwrap())
        };
        assert_eq!(end(KEY), Ok(None));
        for both in [format!("{KEY}{own}"), format!("{own}{KEY}"), format!("{KEY}{own}{other}")] {
            assert_eq!(end(&both), Ok(Some(2_000_000_000)), "{both}");
        }
        assert_eq!(end(&format!("{KEY}{other}")), Err("has a certificate that does not belong to its private key"));
        let broken = own.replacen("MII", "MIJ", 1);
        assert_eq!(end(&format!("{KEY}{broken}")), Err("has a certificate that cannot be read"));
    }

    /// A5, I14: a DN goes into a header, so only that of a certificate is accepted.
    #[test]
    fn dns_of_certificates() {
        for good in [DN, "uni/userext/appuser-vendor_app/usercert-vendor_app.crt", "uni/userext/user-a@b/usercert-a:b"]
        {
            assert!(is_certificate_dn(good), "{good}");
        }
        let long = format!("{DN}{}", "x".repeat(MAX_DN));
        for bad in [
            "",
            "aci-sync",
            "uni/userext/user-aci-sync",
            "uni/userext/user-/usercert-one",
            "uni/userext/user-a/usercert-",
            "uni/userext/user-a/usercert-one; X=y",
            "uni/userext/user-a/usercert-one\r\nX: y",
            "uni/userext/user-a/b/usercert-one",
            "uni/userext/remoteuser-a/usercert-one",
            &long,
        ] {
            assert!(!is_certificate_dn(bad), "{bad}");
        }
    }

    /// A5: a wrong key, an unknown certificate and a wrong clock are distinguished as far as the APIC does.
    #[test]
    fn refusals_are_explained() {
        let nothing = "Need a valid webtoken cookie (named APIC-Cookie) or a signed request";
        for (refusal, ahead, expected) in [
            ("bad signature", Some(500), "the private key does not belong to the certificate at this DN"),
            ("padding check failed", None, "the private key does not belong to the certificate at this DN"),
            ("certificate has expired", Some(0), "not valid by the clock of the APIC, which agrees with ours"),
            ("certificate is not yet valid", Some(-86_400), "by the clock of the APIC, which is 86400 s behind ours"),
            (nothing, None, "the user has no certificate at this DN, or it is not valid by the clock of the APIC"),
            (nothing, Some(-3), "or it is not valid by the clock of the APIC, which agrees with ours"),
            (nothing, Some(3600), "or it is not valid by the clock of the APIC, which is 3600 s ahead of ours"),
        ] {
            let text = certificate().explain(refusal.to_owned(), ahead);
            assert!(text.starts_with(&format!("{refusal}; ")) && text.ends_with(expected), "{text}");
        }
    }

    /// A4: a certificate prints its DN and nothing of its key.
    #[test]
    fn the_key_is_not_printed() {
        let text = format!("{:?}", certificate());
        assert!(text.contains(DN) && text.contains("[secret]") && !text.contains("MII"), "{text}");
    }
}
