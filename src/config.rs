//! Checked configuration values, made from the flags and variables that `cli` parsed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::{info, warn};

use crate::apic::{self, Controller, Identity};
use crate::cli::{Command, Given, Invocation};
use crate::exit::ExitError;
use crate::files;
use crate::kube::kinds;
use crate::logging;
use crate::metrics;
use crate::model::dn::L3outDn;
use crate::model::kubernetes::{Kind, is_dns_name};
use crate::model::owner::OwnerIdentity;
use crate::model::rules::{Allow, Cidr, Exposed, MaxDeletes, Policy, Rules};
use crate::model::scope::{IMPORT_SECURITY, Scope};
use crate::net::{self, Peer, Roots, TlsSettings, Verify};
use crate::secret::Secret;
use crate::service_settings;
use crate::status::listen::ListenAddress;

/// The longest duration accepted.
const MAX_DURATION: Duration = Duration::from_secs(7 * 86_400);

/// The largest password file, in bytes.
const MAX_PASSWORD: u64 = 4096;

/// The largest file with a private key, in bytes; one of 16,384 bits has 13,000.
const MAX_KEY: u64 = 64 << 10;

/// The largest CA bundle, in bytes; four times the size of a system's bundle of all roots.
const MAX_CA: u64 = 1 << 20;

/// The flags of an `l3extSubnet`'s scope.
const SCOPE_FLAGS: [&str; 5] = ["export-rtctrl", IMPORT_SECURITY, "import-rtctrl", "shared-rtctrl", "shared-security"];

/// All settings of a run. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kubeconfig file, if given.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig context, if given.
    pub context: Option<String>,
    /// The APIC controllers, at least one.
    pub controllers: Vec<Controller>,
    /// Which APIC certificates are trusted.
    pub apic_tls: TlsSettings,
    /// Who logs in at the APIC: a user with a password, or by certificate.
    pub identity: Identity,
    /// The password, or the private key of the certificate.
    pub secret: Secret,
    /// The cluster id, if given.
    pub cluster_id: Option<String>,
    /// Former cluster ids.
    pub adopt_ids: Vec<String>,
    /// What may be desired and planned.
    pub rules: Rules,
    /// How long an owned EPG stays after its last workload is gone.
    pub epg_grace: Duration,
    /// Which writes may be sent.
    pub policy: Policy,
    /// The interval of full syncs.
    pub resync: Duration,
    /// The maximum of requests per second to the APIC; `None`: no limit.
    pub apic_rate: Option<u32>,
    /// How many requests may be in flight together (W9).
    pub parallel: usize,
    /// Namespace and name of the Lease that a writer must hold, with leader election.
    pub lease: Option<(String, String)>,
    /// Whether Kubernetes Events are written.
    pub events: bool,
    /// Where the status server listens.
    pub listen: Vec<ListenAddress>,
}

/// The addresses of `--listen`; by default a socket in the folder that systemd made for the service, if it made one.
pub fn listen(
    invocation: &Invocation,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<ListenAddress>, ExitError> {
    let Some(given) = invocation.get("listen") else {
        let folder = environment.get("RUNTIME_DIRECTORY").and_then(|folders| folders.split(':').next());
        let path = folder.filter(|folder| folder.starts_with('/')).map(|folder| format!("{folder}/aci-sync.sock"));
        return Ok(path.map(|path| ListenAddress::Unix(path.into())).into_iter().collect());
    };
    if given.values == ["off"] {
        return Ok(Vec::new());
    }
    given.values.iter().map(|text| ListenAddress::parse(text).map_err(|why| given.invalid(why))).collect()
}

/// The form of log lines, checked before everything else because all other errors may be logged.
pub fn log_format(invocation: &Invocation) -> Result<logging::Format, ExitError> {
    let Some(given) = invocation.get("log-format") else { return Ok(logging::Format::default()) };
    match given.values.first().map(String::as_str) {
        Some("text") => Ok(logging::Format::Text),
        Some("json") => Ok(logging::Format::Json),
        other => Err(given.invalid(format!("{:?} is neither text nor json", other.unwrap_or_default()))),
    }
}

/// Checks all values.
pub fn load(invocation: &Invocation, environment: &BTreeMap<String, String>) -> Result<Config, ExitError> {
    let mut config = load_without_secret(invocation, environment)?;
    config.secret = secret(invocation, environment)?;
    Ok(config)
}

/// Checks all values but the password or the private key, which stays empty.
pub fn load_without_secret(
    invocation: &Invocation,
    environment: &BTreeMap<String, String>,
) -> Result<Config, ExitError> {
    let get = |flag: &str| invocation.get(flag);
    let first = |flag: &str| get(flag).and_then(|it| it.values.first()).cloned();

    let Some(apic) = get("apic") else {
        return Err(ExitError::config("missing APIC controllers; set --apic or ACI_APIC"));
    };
    let controllers = apic.values.iter().map(|it| Controller::parse(it)).collect::<Result<_, _>>();
    let controllers = controllers.map_err(|why| apic.invalid(why))?;
    let identity = identity(invocation, environment)?;
    let cluster_id = match get("cluster-id") {
        Some(given) => Some(cluster_ids(given)?.remove(0)),
        None => None,
    };
    let policy = get("policy").map_or(Ok(Policy::Sync), policy)?;
    Ok(Config {
        kubeconfig: first("kubeconfig").map(PathBuf::from),
        context: first("context"),
        controllers,
        apic_tls: apic_tls(invocation)?,
        identity,
        secret: Secret::default(),
        cluster_id,
        adopt_ids: get("adopt-id").map(cluster_ids).transpose()?.unwrap_or_default(),
        rules: rules(invocation)?,
        epg_grace: duration(get("epg-grace"), Duration::ZERO)?.unwrap_or(Duration::from_secs(60)),
        policy,
        resync: duration(get("resync"), Duration::from_secs(10))?.unwrap_or(Duration::from_secs(600)),
        apic_rate: get("apic-rate").map_or(Ok(Some(APIC_RATE)), |it| number_or_off(it, 1, 1000))?,
        parallel: get("parallel").map_or(Ok(PARALLEL), |it| number(it, 1, 8))?,
        lease: lease(invocation, policy)?,
        events: get("events").is_none() || invocation.is_on("events"),
        listen: listen(invocation, environment)?,
    })
}

/// Leader election (K4). `run --once` cannot take part in it and must not write beside a leader. An observer takes no
/// part either, because its leadership would keep the others from writing.
fn lease(invocation: &Invocation, policy: Policy) -> Result<Option<(String, String)>, ExitError> {
    let name = |flag: &str, default: &str, longest: usize, labels: bool| match invocation.get(flag) {
        None => Ok(default.to_owned()),
        Some(given) if is_dns_name(&given.values[0], longest, labels) => Ok(given.values[0].clone()),
        Some(given) => {
            let why = format!(
                "{:?} is not a valid name: at most {longest} lower-case letters, digits and -",
                given.values[0]
            );
            Err(given.invalid(why))
        }
    };
    let lease = (name("lease-namespace", "kube-system", 63, false)?, name("lease-name", "aci-sync", 253, true)?);
    if invocation.command == Command::Purge {
        // It takes the Lease so that daemons stand by, whether they take part in an election or not (T11).
        return Ok(Some(lease));
    }
    let elect = invocation.get("leader-elect").filter(|_| invocation.is_on("leader-elect"));
    match elect {
        Some(given) if invocation.command == Command::Run && invocation.is_on("once") => Err(given.invalid(
            "not valid with --once; stop all daemons of this cluster, then run --once with --leader-elect=false",
        )),
        Some(_) if policy == Policy::Observe => {
            info!("leader election is off because of --policy observe");
            Ok(None)
        }
        elect => Ok(elect.map(|_| lease)),
    }
}

fn rules(invocation: &Invocation) -> Result<Rules, ExitError> {
    let get = |flag: &str| invocation.get(flag);
    let default = Rules::default();
    Ok(Rules {
        kinds: get("workloads").map_or(Ok(default.kinds), kinds)?,
        default_l3out: get("default-l3out").map(l3out).transpose()?,
        expose: get("expose").map_or(Ok(default.expose), expose)?,
        addresses: get("addresses").map_or(Ok(default.addresses), addresses)?,
        allow: get("allow").map_or(Ok(default.allow), allow)?,
        use_foreign: get("foreign-epg").map_or(Ok(default.use_foreign), use_foreign)?,
        scope: get("subnet-scope").map_or(Ok(default.scope), scope)?,
        keep_contracted: invocation.is_on("keep-contracted"),
        restore_contracts: invocation.is_on("restore-contracts"),
        batch: get("batch").map_or(Ok(default.batch), |it| number(it, 1, 1000))?,
        max_deletes: get("max-deletes").map_or(Ok(default.max_deletes), max_deletes)?,
        max_epgs: get("max-epgs").map_or(Ok(default.max_epgs), |it| number_or_off(it, 1, 100_000))?,
    })
}

/// The kinds that are watched: Pods, Services, and the workloads that are named (G1).
fn kinds(given: &Given) -> Result<Vec<Kind>, ExitError> {
    let is_named = |kind: &Kind| given.values.iter().any(|it| *it == kinds::info(*kind).plural);
    let workloads = || Kind::ALL.into_iter().filter(|it| it.is_workload());
    if let Some(bad) = given.values.iter().find(|it| workloads().all(|kind| **it != kinds::info(kind).plural)) {
        return Err(given.invalid(format!("{bad:?} is none of deployments, statefulsets and daemonsets")));
    }
    Ok(Kind::ALL.into_iter().filter(|it| !it.is_workload() || is_named(it)).collect())
}

fn l3out(given: &Given) -> Result<L3outDn, ExitError> {
    let text = &given.values[0];
    L3outDn::parse(text).map_err(|why| given.invalid(format!("{text:?}: {why}")))
}

fn expose(given: &Given) -> Result<Exposed, ExitError> {
    let exposed = Exposed::of(given.values.iter().map(String::as_str));
    exposed.map_err(|bad| given.invalid(format!("{bad:?} is neither pods nor services")))
}

fn addresses(given: &Given) -> Result<Vec<Cidr>, ExitError> {
    let read = |text: &String| Cidr::parse(text).map_err(|why| given.invalid(format!("{text:?} {why}")));
    given.values.iter().map(read).collect()
}

fn allow(given: &Given) -> Result<Vec<Allow>, ExitError> {
    let read = |text: &String| Allow::parse(text).map_err(|why| given.invalid(format!("{text:?} {why}")));
    given.values.iter().map(read).collect()
}

fn use_foreign(given: &Given) -> Result<bool, ExitError> {
    match given.values[0].as_str() {
        "use" => Ok(true),
        "refuse" => Ok(false),
        other => Err(given.invalid(format!("{other:?} is neither use nor refuse"))),
    }
}

/// `N`, `N%` or `off`.
fn max_deletes(given: &Given) -> Result<MaxDeletes, ExitError> {
    let text = given.values[0].as_str();
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|it| it.is_ascii_digit()));
    let read = match text.strip_suffix('%') {
        _ if text == "off" => Some(MaxDeletes::Off),
        Some(percent) => number(percent).filter(|it| *it <= 100).map(MaxDeletes::Percent),
        None => number(text).map(MaxDeletes::Number),
    };
    read.ok_or_else(|| given.invalid(format!("{text:?} is not a number, a percentage or off")))
}

/// `N` or `off`.
fn number_or_off<N: FromStr + PartialOrd + fmt::Display>(
    given: &Given,
    least: N,
    most: N,
) -> Result<Option<N>, ExitError> {
    let text = given.values[0].as_str();
    if text == "off" {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|it| (&least..=&most).contains(&it)).map(Some);
    number.ok_or_else(|| given.invalid(format!("{text:?} is neither a number from {least} to {most} nor off")))
}

fn policy(given: &Given) -> Result<Policy, ExitError> {
    match given.values[0].as_str() {
        "sync" => Ok(Policy::Sync),
        "upsert-only" => Ok(Policy::UpsertOnly),
        "observe" => Ok(Policy::Observe),
        other => Err(given.invalid(format!("{other:?} is none of sync, upsert-only and observe"))),
    }
}

/// Below the throttle of 30 requests per second that Cisco recommends for an APIC (W8).
const APIC_RATE: u32 = 20;

/// A web server of an APIC serves that many together without refusing any (W9).
const PARALLEL: usize = 4;

fn number(given: &Given, least: usize, most: usize) -> Result<usize, ExitError> {
    let number = given.values[0].parse().ok().filter(|it| (least..=most).contains(it));
    number.ok_or_else(|| given.invalid(format!("{:?} is not a number from {least} to {most}", given.values[0])))
}

/// How long `explain` waits (`--wait`).
pub fn wait(invocation: &Invocation) -> Result<Option<Duration>, ExitError> {
    duration(invocation.get("wait"), Duration::ZERO)
}

/// `90`, `90s`, `10m`, `1h`.
fn duration(given: Option<&Given>, least: Duration) -> Result<Option<Duration>, ExitError> {
    let Some(given) = given else { return Ok(None) };
    let text = given.values[0].as_str();
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let digits = !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| digits).and_then(|it| it.checked_mul(unit));
    let seconds = seconds.ok_or_else(|| given.invalid(format!("{text:?} is not a duration like 90s, 10m or 1h")))?;
    let duration = Duration::from_secs(seconds);
    if duration < least || duration > MAX_DURATION {
        let range = format!("{text:?} is not between {} s and {} s", least.as_secs(), MAX_DURATION.as_secs());
        return Err(given.invalid(range));
    }
    Ok(Some(duration))
}

fn cluster_ids(given: &Given) -> Result<Vec<String>, ExitError> {
    match given.values.iter().find(|it| !OwnerIdentity::is_id(it)) {
        Some(bad) => Err(given.invalid(format!("{bad:?} is not a cluster id: 1 to 40 letters, digits and _.-"))),
        None => Ok(given.values.clone()),
    }
}

fn scope(given: &Given) -> Result<Scope, ExitError> {
    if let Some(bad) = given.values.iter().find(|it| !SCOPE_FLAGS.contains(&it.as_str())) {
        let known = SCOPE_FLAGS.join(", ");
        return Err(given.invalid(format!("unknown scope flag {bad:?}; the flags are {known}")));
    }
    let scope = Scope::parse(&given.values.join(","));
    if scope.has_flag("shared-security") && !scope.has_flag(IMPORT_SECURITY) {
        return Err(given.invalid(format!("shared-security needs {IMPORT_SECURITY}")));
    }
    Ok(scope)
}

fn apic_tls(invocation: &Invocation) -> Result<TlsSettings, ExitError> {
    let (ca, fingerprints) = (invocation.get("apic-ca"), invocation.get("apic-fingerprint"));
    let insecure = invocation.is_on("apic-insecure");
    if usize::from(ca.is_some()) + usize::from(fingerprints.is_some()) + usize::from(insecure) > 1 {
        let by_flag = ["apic-ca", "apic-fingerprint", "apic-insecure"].iter();
        let by_flag = by_flag.filter_map(|it| invocation.get(it)).any(|it| it.by_flag);
        let why = "--apic-ca, --apic-fingerprint and --apic-insecure exclude each other; choose one".to_owned();
        return Err(if by_flag { ExitError::usage(why) } else { ExitError::config(why) });
    }
    let mut tls = TlsSettings { peer: Peer::Apic, ..TlsSettings::default() };
    if let Some(given) = ca {
        let failed = |why: &dyn fmt::Display| {
            ExitError::config(format!("{}: failed to read {:?}: {why}", given.origin, given.values[0]))
        };
        let pem = files::read(Path::new(&given.values[0]), MAX_CA).map_err(|why| failed(&why))?;
        net::bundle(&pem, "CA bundle").map_err(|error| failed(&error))?;
        (tls.roots, tls.roots_from) = (Roots::Pem(pem), format!("{}: {:?}", given.origin, given.values[0]));
    }
    if let Some(given) = fingerprints {
        let parsed = given.values.iter().map(|it| fingerprint(it)).collect::<Option<_>>();
        let help =
            "not a SHA-256 fingerprint: 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them";
        tls.verify = Verify::Fingerprints(parsed.ok_or_else(|| given.invalid(help))?);
    }
    if insecure {
        tls.verify = Verify::Nothing;
    }
    Ok(tls)
}

/// 64 hexadecimal digits, with or without colons and the prefix that openssl prints.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.rsplit('=').next()?.chars().filter(|it| *it != ':').collect();
    if digits.len() != 64 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Vec<u8> = (0..64).step_by(2).filter_map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect();
    bytes.try_into().ok()
}

/// Who logs in: by certificate (A5), or with a password (A1), never both.
fn identity(invocation: &Invocation, environment: &BTreeMap<String, String>) -> Result<Identity, ExitError> {
    match (invocation.get(CERTIFICATE), invocation.get(KEY)) {
        (None, None) => match environment.get("ACI_USERNAME").filter(|it| !it.is_empty()) {
            Some(user) => Ok(Identity::User(user.clone())),
            None => {
                Err(ExitError::config(format!("missing APIC user; set ACI_USERNAME, or --{CERTIFICATE} and --{KEY}")))
            }
        },
        (Some(given), None) => Err(given.invalid(format!("a certificate needs its key; set --{KEY}, too"))),
        (None, Some(given)) => Err(given.invalid(format!("a key needs its certificate; set --{CERTIFICATE}, too"))),
        (Some(given), Some(_)) => {
            let dn = &given.values[0];
            if let Some(password) = password_origin(invocation, environment) {
                let why = format!("not together with {password}; log in either by certificate or with a password");
                return Err(given.invalid(why));
            }
            if !apic::is_certificate_dn(dn) {
                let why = format!("{dn:?} is not the DN of a certificate: uni/userext/user-USER/usercert-NAME");
                return Err(given.invalid(why));
            }
            Ok(Identity::Certificate(dn.clone()))
        }
    }
}

/// The flags of the login by certificate.
const CERTIFICATE: &str = "apic-certificate-dn";
const KEY: &str = "apic-private-key-file";

/// Where a password comes from, if there is one.
fn password_origin(invocation: &Invocation, environment: &BTreeMap<String, String>) -> Option<String> {
    let file = invocation.get("password-file").map(|it| it.origin.clone());
    let is_credential = password_credential(environment).is_some_and(|it| is_given(&it));
    let variable = environment.get("ACI_PASSWORD").is_some_and(|it| !it.is_empty());
    let credential = || is_credential.then(|| "the credential apic-password".to_owned());
    file.or_else(credential).or_else(|| variable.then(|| "ACI_PASSWORD".to_owned()))
}

/// The file of systemd's credential, if systemd gives any.
fn password_credential(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    environment.get("CREDENTIALS_DIRECTORY").map(|folder| Path::new(folder).join("apic-password"))
}

/// Whether a credential is there, readable or not. The unit gives an empty line if there is no file.
fn is_given(credential: &Path) -> bool {
    match files::read(credential, MAX_PASSWORD) {
        Ok(bytes) => bytes.iter().any(|it| !matches!(it, b'\n' | b'\r')),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// The file that the password or the private key is read from, if a flag or a variable names one.
pub fn secret_file(invocation: &Invocation) -> Option<&Given> {
    invocation.get(KEY).or_else(|| invocation.get("password-file"))
}

/// The password or the private key.
pub fn secret(invocation: &Invocation, environment: &BTreeMap<String, String>) -> Result<Secret, ExitError> {
    let Some(given) = secret_file(invocation) else { return password(environment) };
    let file = Path::new(&given.values[0]);
    let secret = if invocation.get(KEY).is_some() {
        private_key_in(file, &given.origin)?
    } else {
        password_in(file, &given.origin)?
    };
    if is_readable_by_others(file) {
        warn!(name:% = file.display(); "file with APIC credentials is readable by other users; run chmod 600 on it");
    }
    Ok(secret)
}

/// The password from systemd's credentials, or from the environment (A1).
fn password(environment: &BTreeMap<String, String>) -> Result<Secret, ExitError> {
    let credential = password_credential(environment);
    if let Some(file) = &credential {
        // A credential that is there but cannot be read is an error, not a reason to use the environment.
        if is_given(file) {
            return password_in(file, "the credential apic-password");
        }
    }
    match environment.get("ACI_PASSWORD").filter(|it| !it.is_empty()) {
        Some(password) => Ok(Secret::new(password)),
        None => {
            let file = credential.map(|file| service_settings::original(&file));
            let file = file.map_or(String::new(), |file| format!("write it into {}, or ", file.display()));
            Err(ExitError::config(format!("missing APIC password; {file}set --password-file or ACI_PASSWORD")))
        }
    }
}

/// Whether a file can be read by users who need not read it: others, or its group, unless the group is how we read a file
/// of another user. So a Secret that the kubelet mounts for `fsGroup` is as it should be.
pub fn is_readable_by_others(file: &Path) -> bool {
    let us = rustix::process::geteuid();
    std::fs::metadata(file).is_ok_and(|it| {
        let needs_group = !us.is_root() && it.uid() != us.as_raw();
        it.is_file() && is_open(it.mode(), needs_group)
    })
}

fn is_open(mode: u32, needs_group: bool) -> bool {
    mode & if needs_group { 0o007 } else { 0o077 } != 0
}

fn text_in(file: &Path, origin: &str, limit: u64) -> Result<String, ExitError> {
    let unreadable = |why| ExitError::config(format!("{origin}: failed to read {file:?}: {why}"));
    let bytes = files::read(file, limit).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| ExitError::config(format!("{origin}: {file:?} is not UTF-8")))
}

fn private_key_in(file: &Path, origin: &str) -> Result<Secret, ExitError> {
    let failed = |why| ExitError::config(format!("{origin}: {file:?} {why}"));
    let pem = Secret::new(text_in(file, origin, MAX_KEY)?);
    let key = apic::private_key(&pem).map_err(failed)?;
    let end = apic::end_of_certificate(&pem, &key).map_err(failed)?;
    metrics::credential_ends(metrics::Credential::ApicUserCertificate, end);
    Ok(pem)
}

fn password_in(file: &Path, origin: &str) -> Result<Secret, ExitError> {
    let failed = |why: &str| ExitError::config(format!("{origin}: {file:?} {why}"));
    let text = text_in(file, origin, MAX_PASSWORD)?;
    if text.starts_with('\u{feff}') {
        return Err(failed(
            "begins with a byte order mark, which would become part of the password; save it without one",
        ));
    }
    let password = text.trim_end_matches(['\n', '\r']);
    if password.contains('\n') {
        return Err(failed("has more than one line; the password must be the only one"));
    }
    if password.is_empty() { Err(failed("is empty")) } else { Ok(Secret::new(password)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A1, A5: the warning about a password or key file is for modes that are wider than needed.
    #[test]
    fn modes_that_are_wider_than_needed() {
        for (mode, needs_group, expected) in [
            (0o100_600, false, false),
            (0o100_440, false, true),
            (0o100_440, true, false),
            (0o100_444, true, true),
            (0o100_604, false, true),
        ] {
            assert_eq!(is_open(mode, needs_group), expected, "{mode:o}");
        }
    }
}
