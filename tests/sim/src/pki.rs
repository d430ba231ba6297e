//! Certificates and keys for servers and clients: a CA of its own for each simulator.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

/// A certificate with its key.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: X509,
    /// Its key.
    pub key: PKey<Private>,
}

/// The three forms in which keys stand in PEM files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// `PRIVATE KEY`.
    Pkcs8,
    /// `RSA PRIVATE KEY`.
    Pkcs1,
    /// `EC PRIVATE KEY`, with an `EC PARAMETERS` block in front, as openssl writes it.
    Sec1,
}

impl Pair {
    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    /// The key as PEM, in the form that fits it.
    pub fn key_pem(&self, form: KeyForm) -> String {
        let pem = match form {
            KeyForm::Pkcs8 => self.key.private_key_to_pem_pkcs8().unwrap(),
            KeyForm::Pkcs1 => self.key.rsa().unwrap().private_key_to_pem().unwrap(),
            KeyForm::Sec1 => {
                let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
                [parameters.as_bytes(), &self.key.ec_key().unwrap().private_key_to_pem().unwrap()].concat()
            }
        };
        String::from_utf8(pem).unwrap()
    }

    /// The SHA-256 fingerprint, as openssl prints it.
    pub fn fingerprint(&self) -> String {
        let digest = self.certificate.digest(MessageDigest::sha256()).unwrap();
        digest.iter().map(|it| format!("{it:02X}")).collect::<Vec<_>>().join(":")
    }
}

/// The organisation of every intermediate CA.
const CA_MARK: &str = "intermediate CA";

/// A certification authority.
#[derive(Clone)]
pub struct Authority(pub Pair);

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Authority {
        let key = ec_key();
        Authority(Pair { certificate: certificate(name, &[], &key, None, &[], 3650), key })
    }

    /// Its certificate as PEM.
    pub fn pem(&self) -> String {
        self.0.certificate_pem()
    }

    /// An intermediate CA below it.
    pub fn intermediate(&self, name: &str) -> Authority {
        let key = ec_key();
        let certificate = certificate(name, &[CA_MARK], &key, Some(&self.0), &[], 3650);
        Authority(Pair { certificate, key })
    }

    /// A server's certificate for these names and addresses.
    pub fn server(&self, names: &[&str]) -> Pair {
        let key = ec_key();
        Pair { certificate: certificate(names[0], &[], &key, Some(&self.0), names, 365), key }
    }

    /// A server's certificate that ends after so many days.
    pub fn server_for(&self, names: &[&str], days: i64) -> Pair {
        let key = ec_key();
        Pair { certificate: certificate(names[0], &[], &key, Some(&self.0), names, days), key }
    }

    /// A server's certificate that has run out.
    pub fn expired_server(&self, names: &[&str]) -> Pair {
        let key = ec_key();
        Pair { certificate: certificate(names[0], &[], &key, Some(&self.0), names, -1), key }
    }

    /// A client's certificate: Kubernetes takes the common name for the user, the organisations for the groups.
    pub fn client(&self, user: &str, groups: &[&str], form: KeyForm) -> Pair {
        let key = match form {
            KeyForm::Pkcs1 => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
            _ => ec_key(),
        };
        Pair { certificate: certificate(user, groups, &key, Some(&self.0), &[], 365), key }
    }
}

/// A self-signed certificate of an APIC user with an RSA key, which ends after so many days.
pub fn user_certificate(name: &str, days: i64) -> Pair {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    Pair { certificate: certificate(name, &[], &key, None, &[], days), key }
}

fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// Makes a certificate: signed by `issuer`, or a CA that signs itself. `days` below zero makes it run out yesterday.
fn certificate(
    common_name: &str,
    organisations: &[&str],
    key: &PKey<Private>,
    issuer: Option<&Pair>,
    names: &[&str],
    days: i64,
) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    for organisation in organisations {
        subject.append_entry_by_nid(Nid::ORGANIZATIONNAME, organisation).unwrap();
    }
    subject.append_entry_by_nid(Nid::COMMONNAME, common_name).unwrap();
    let subject = subject.build();
    let mut serial = BigNum::new().unwrap();
    serial.rand(127, MsbOption::MAYBE_ZERO, false).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let day = 86_400;
    let (from, to) = if days < 0 { (now - 10 * day, now - day) } else { (now - day, now + days * day) };

    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.map_or(&subject, |it| it.certificate.subject_name())).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(from).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(to).unwrap()).unwrap();
    builder.set_pubkey(key).unwrap();
    if issuer.is_none() || organisations == [CA_MARK] {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    } else if names.is_empty() {
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build().unwrap()).unwrap();
    } else {
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            if name.parse::<std::net::IpAddr>().is_ok() {
                alternatives.ip(name)
            } else {
                alternatives.dns(name)
            };
        }
        let alternatives = alternatives.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(alternatives).unwrap();
    }
    builder.sign(issuer.map_or(key, |it| &it.key), MessageDigest::sha256()).unwrap();
    builder.build()
}

/// Base64, as kubeconfig files carry PEM.
pub fn base64(text: &str) -> String {
    openssl::base64::encode_block(text.as_bytes())
}

/// A bearer token as Kubernetes issues them, that ends so many days from now.
pub fn jwt(days: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let claims = format!(r#"{{"exp":{},"sub":"system:serviceaccount:kube-system:aci-sync"}}"#, now + days * 86_400);
    let part = |text: &str| base64(text).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
    format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(&claims), part("signature"))
}
