//! Flags, variables and files: values, the one clear sentence for an invalid one, and the texts made from the table.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use aci_sync::cli::{self, CommandInfo, Invocation, manual};
use aci_sync::config::{self, Config};
use aci_sync::logging;
use aci_sync::model::binding;
use aci_sync::model::kubernetes::Kind;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::{Exposed, MaxDeletes};
use aci_sync::net::Verify;
use sim::folder::Folder;
use sim::pki::{Authority, KeyForm, user_certificate};

fn load(words: &str, environment: &[(&str, &str)]) -> Result<Config, (u8, String)> {
    let mut all: BTreeMap<String, String> =
        [("ACI_USERNAME", "admin"), ("ACI_PASSWORD", "secret-word"), ("ACI_APIC", "apic1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    for (name, value) in environment {
        all.insert((*name).to_owned(), (*value).to_owned());
    }
    let words = std::iter::once("run").chain(words.split_whitespace()).map(OsString::from);
    let config = cli::parse(words, &all).and_then(|it| config::load(&it, &all));
    config.map_err(|error| (error.code, error.message))
}

/// G1: defaults, and every flag once.
#[test]
fn values() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.controllers[0].to_string(), "apic1:443");
    assert_eq!((config.epg_grace, config.resync), (Duration::from_secs(60), Duration::from_secs(600)));
    assert_eq!((config.policy, config.rules.batch, config.rules.keep_contracted), (Policy::Sync, 500, false));
    assert!(config.events);
    assert_eq!(config.rules.scope.to_string(), "import-security");
    assert!(matches!(config.apic_tls.verify, Verify::Chain));
    let rules = config.rules;
    assert_eq!((rules.expose, rules.use_foreign), (Exposed { pods: true, services: true }, true));
    assert_eq!((rules.allow.len(), rules.max_deletes), (0, MaxDeletes::Percent(30)));

    let config = load(
        "--apic HTTPS://a.example:8443,apic1.example.com.,[fd00::1]:444,fd00::2,10.0.0.1 --cluster-id prod-1 --adopt-id a,b --adopt-id c \
         --subnet-scope import-security,shared-rtctrl --epg-grace 10m --keep-contracted --policy upsert-only --batch 7 \
         --resync 1h --events=false --kubeconfig /k --context other",
        &[],
    );
    let config = config.unwrap();
    let controllers: Vec<String> = config.controllers.iter().map(ToString::to_string).collect();
    assert_eq!(
        controllers,
        ["a.example:8443", "apic1.example.com.:443", "[fd00::1]:444", "[fd00::2]:443", "10.0.0.1:443"]
    );
    assert_eq!(config.cluster_id.as_deref(), Some("prod-1"));
    assert_eq!(config.adopt_ids, ["a", "b", "c"]);
    assert_eq!(config.rules.scope.to_string(), "import-security,shared-rtctrl");
    assert_eq!((config.epg_grace, config.resync), (Duration::from_secs(600), Duration::from_secs(3600)));
    assert_eq!((config.policy, config.rules.batch, config.rules.keep_contracted), (Policy::UpsertOnly, 7, true));
    assert!(!config.events);

    let rules = |words: &str| load(words, &[]).unwrap().rules;
    assert_eq!(rules("--expose services").expose, Exposed { pods: false, services: true });
    assert!(!rules("--foreign-epg refuse").use_foreign);
    assert_eq!(rules("").kinds, Kind::DEFAULT);
    assert_eq!(rules("--workloads daemonsets,deployments --workloads statefulsets,daemonsets").kinds, Kind::ALL);
    assert_eq!(rules("--workloads statefulsets").kinds, [Kind::StatefulSet, Kind::Pod, Kind::Service]);
    assert_eq!(rules("--addresses 10.0.0.0/8,fd00::/8 --addresses 192.0.2.0/24").addresses.len(), 3);
    assert_eq!(rules("--allow a=T/L,b*=T/L/E --allow ?=T/L:1").allow.len(), 3);
    for (text, most) in [
        ("7", MaxDeletes::Number(7)),
        ("0", MaxDeletes::Number(0)),
        ("50%", MaxDeletes::Percent(50)),
        ("off", MaxDeletes::Off),
    ] {
        assert_eq!(rules(&format!("--max-deletes {text}")).max_deletes, most);
    }
    assert_eq!((rules("").max_epgs, rules("--max-epgs 7").max_epgs), (Some(100), Some(7)));
    assert_eq!(rules("--max-epgs off").max_epgs, None);
    let lease = |words: &str| load(words, &[]).unwrap().lease.map(|(namespace, name)| format!("{namespace}/{name}"));
    assert_eq!(lease("--lease-name x"), None);
    assert_eq!(lease("--leader-elect").as_deref(), Some("kube-system/aci-sync"));
    assert_eq!(lease("--leader-elect --lease-namespace net-0 --lease-name a.b-c").as_deref(), Some("net-0/a.b-c"));
    assert_eq!(lease("--leader-elect --policy observe"), None, "an observer must not keep a writer from leading");
    assert_eq!(load("", &[("ACI_SYNC_EPG_GRACE", "90")]).unwrap().epg_grace, Duration::from_secs(90));
}

/// X4: a bad value is one sentence that names the thing; 64 on the command line, 78 elsewhere.
#[test]
fn bad_values() {
    for (words, environment, code, complaint) in [
        ("", &[("ACI_APIC", "")][..], 78, "missing APIC controllers; set --apic or ACI_APIC"),
        ("", &[("ACI_USERNAME", "")], 78, "set ACI_USERNAME"),
        ("", &[("ACI_PASSWORD", "")], 78, "missing APIC password; set --password-file or ACI_PASSWORD"),
        (
            "--apic-certificate-dn D --apic-private-key-file F",
            &[],
            64,
            "--apic-certificate-dn: not together with ACI_PASSWORD",
        ),
        (
            "--apic-certificate-dn D",
            &[],
            64,
            "--apic-certificate-dn: a certificate needs its key; set --apic-private-key-file",
        ),
        ("--apic-private-key-file F", &[], 64, "--apic-private-key-file: a key needs its certificate"),
        ("--apic http://apic1", &[], 64, "--apic: \"http://apic1\" begins with http://"),
        ("", &[("ACI_APIC", "http://apic1")], 78, "ACI_APIC: \"http://apic1\""),
        ("--apic apic1:0", &[], 64, "host:port"),
        ("--apic apic1:99999", &[], 64, "host:port"),
        ("--apic apic1/path", &[], 64, "host:port"),
        ("--apic user:secret-word@apic1", &[], 64, "--apic: must not contain a user"),
        ("--apic http://user:secret-word@apic1", &[], 64, "set ACI_USERNAME"),
        ("", &[("ACI_APIC", "secret-word@apic1")], 78, "ACI_APIC: must not contain a user"),
        ("--apic [::1", &[], 64, "host:port"),
        ("--apic [::1]x", &[], 64, "host:port"),
        ("--cluster-id a/b", &[], 64, "--cluster-id: \"a/b\" is not a cluster id"),
        ("", &[("ACI_SYNC_CLUSTER_ID", "a b")], 78, "ACI_SYNC_CLUSTER_ID"),
        ("--adopt-id ok,n:o", &[], 64, "\"n:o\" is not a cluster id"),
        ("--subnet-scope import", &[], 64, "unknown scope flag \"import\""),
        ("--subnet-scope shared-security", &[], 64, "shared-security needs import-security"),
        ("--epg-grace soon", &[], 64, "not a duration"),
        ("--epg-grace -1s", &[], 64, "not a duration"),
        ("--epg-grace 99999h", &[], 64, "not between"),
        ("--epg-grace 99999999999999999999", &[], 64, "not a duration"),
        ("--resync 1s", &[], 64, "not between 10 s"),
        ("--leader-elect --once", &[], 64, "--leader-elect: not valid with --once"),
        ("--once", &[("ACI_SYNC_LEADER_ELECT", "true")], 78, "ACI_SYNC_LEADER_ELECT: not valid with --once"),
        ("--lease-namespace a.b", &[], 64, "--lease-namespace: \"a.b\" is not a valid name"),
        ("--lease-name a/../b", &[], 64, "--lease-name: \"a/../b\" is not a valid name"),
        ("", &[("ACI_SYNC_LEASE_NAME", "Aci")], 78, "ACI_SYNC_LEASE_NAME: \"Aci\" is not a valid name"),
        ("--lease-name a..b", &[], 64, "is not a valid name"),
        ("--lease-name -a", &[], 64, "is not a valid name"),
        ("--batch 0", &[], 64, "1 to 1000"),
        ("--batch 1001", &[], 64, "1 to 1000"),
        ("--policy dry-run", &[], 64, "none of sync, upsert-only and observe"),
        ("--workloads Deployment", &[], 64, "\"Deployment\" is none of deployments, statefulsets and daemonsets"),
        ("--workloads deployments,pods", &[], 64, "--workloads: \"pods\" is none of"),
        ("", &[("ACI_SYNC_WORKLOADS", "jobs")], 78, "ACI_SYNC_WORKLOADS: \"jobs\" is none of"),
        ("--expose pods,nodes", &[], 64, "\"nodes\" is neither pods nor services"),
        ("--addresses 10.0.0.1", &[], 64, "--addresses: \"10.0.0.1\" is not ADDRESS/LENGTH"),
        ("--addresses 10.1.0.0/8", &[], 64, "the block is 10.0.0.0/8"),
        ("", &[("ACI_SYNC_ADDRESSES", "fd00::/8,x")], 78, "ACI_SYNC_ADDRESSES: \"x\" is not ADDRESS/LENGTH"),
        ("--foreign-epg maybe", &[], 64, "neither use nor refuse"),
        ("--max-epgs 0", &[], 64, "--max-epgs: \"0\" is neither a number from 1 to 100000 nor off"),
        ("--max-epgs some", &[], 64, "neither a number from 1 to 100000 nor off"),
        ("--max-deletes -1", &[], 64, "not a number, a percentage or off"),
        ("--max-deletes 101%", &[], 64, "not a number, a percentage or off"),
        ("--max-deletes +5", &[], 64, "not a number, a percentage or off"),
        ("--allow a", &[], 64, "\"a\" is not NAMESPACE=TENANT/L3OUT"),
        ("--allow a=T", &[], 64, "is not NAMESPACE=TENANT/L3OUT"),
        ("--allow a=T/L/E/x", &[], 64, "is not NAMESPACE=TENANT/L3OUT"),
        ("--allow =T/L", &[], 64, "is not NAMESPACE=TENANT/L3OUT"),
        ("--allow a=*/L", &[], 64, "\"a=*/L\" has a tenant that may have only letters"),
        ("", &[("ACI_SYNC_ALLOW", "a=T/L]x")], 78, "ACI_SYNC_ALLOW: \"a=T/L]x\" has an L3Out that may have only"),
        ("--apic-fingerprint 12:34", &[], 64, "64 hexadecimal digits"),
        ("--apic-insecure --apic-ca /x", &[], 64, "exclude each other"),
        ("--apic-insecure", &[("ACI_SYNC_APIC_CA", "/x")], 64, "exclude each other"),
        ("", &[("ACI_SYNC_APIC_INSECURE", "true"), ("ACI_SYNC_APIC_CA", "/x")], 78, "exclude each other"),
        ("--apic-ca /no/such/file", &[], 78, "--apic-ca: failed to read \"/no/such/file\": "),
        ("--apic-ca /dev/zero", &[], 78, "--apic-ca: failed to read \"/dev/zero\": not a regular file"),
        ("--apic-ca /dev/null", &[], 78, "--apic-ca: failed to read \"/dev/null\": not a regular file"),
        ("--password-file /no/such/file", &[], 78, "--password-file: failed to read \"/no/such/file\": "),
        ("--password-file /dev/zero", &[], 78, "--password-file: failed to read \"/dev/zero\": not a regular file"),
        ("--password-file /", &[], 78, "--password-file: failed to read \"/\": "),
        ("", &[("ACI_SYNC_KEEP_CONTRACTED", "yes")], 78, "ACI_SYNC_KEEP_CONTRACTED: \"yes\" is neither true nor false"),
    ] {
        let (got, why) = load(words, environment).unwrap_err();
        assert!(got == code && why.contains(complaint) && !why.contains('\n'), "{words} {environment:?}: {got} {why}");
        assert!(!why.contains("secret-word"));
    }
}

/// A1: the password from a file, then from systemd's credentials, then from the environment; A4: never shown.
#[test]
fn passwords() {
    let folder = Folder::new();
    let file = folder.file("password", "from-file\n");
    folder.file("apic-password", "from-credential");
    let credentials = ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap());
    let password =
        |words: &str, environment: &[(&str, &str)]| load(words, environment).unwrap().secret.expose().to_owned();
    assert_eq!(password(&format!("--password-file {}", file.display()), &[credentials]), "from-file");
    assert_eq!(password("", &[("ACI_SYNC_PASSWORD_FILE", file.to_str().unwrap())]), "from-file");
    assert_eq!(password("", &[credentials]), "from-credential");
    assert_eq!(password("", &[]), "secret-word");
    let empty = folder.file("empty", "\n");
    let (code, why) = load(&format!("--password-file {}", empty.display()), &[]).unwrap_err();
    assert_eq!((code, why.contains("is empty")), (78, true));
    let large = folder.file("large", &"x".repeat(5000));
    assert!(load(&format!("--password-file {}", large.display()), &[]).unwrap_err().1.contains("larger than"));
    for (text, complaint) in
        [("\u{feff}secret-word", "byte order mark"), ("secret-word\nsecret-word", "more than one line")]
    {
        let file = folder.file("odd", text);
        let (code, why) = load(&format!("--password-file {}", file.display()), &[]).unwrap_err();
        assert!(code == 78 && why.contains(complaint) && !why.contains("secret-word"), "{why}");
    }
    folder.file("apic-password", "one\ntwo\n");
    assert!(
        load("", &[credentials]).unwrap_err().1.contains("more than one line"),
        "a bad credential is no reason to look elsewhere"
    );
    for nothing in ["\n", ""] {
        folder.file("apic-password", nothing);
        assert_eq!(password("", &[credentials]), "secret-word", "an empty line is what the unit gives for no file");
    }
    let certificate = format!(
        "--apic-certificate-dn uni/userext/user-a/usercert-b --apic-private-key-file {}",
        folder.file("key.pem", &user_certificate("a", 30).key_pem(KeyForm::Pkcs8)).display()
    );
    let (nothing, service) = (("ACI_PASSWORD", ""), ("CREDENTIALS_DIRECTORY", "/run/credentials/aci-sync.service"));
    assert!(load(&certificate, &[nothing, credentials]).is_ok());
    let (code, why) = load("", &[nothing, service]).unwrap_err();
    assert!(
        code == 78 && why.contains("missing APIC password; write it into /etc/aci-sync/apic-password, or"),
        "{why}"
    );
    assert!(!format!("{:?}", load("", &[]).unwrap()).contains("secret-word"));
}

/// A2: fingerprints in the forms that openssl prints.
#[test]
fn fingerprints() {
    let printed = Authority::new("x").0.fingerprint();
    let plain = printed.replace(':', "").to_lowercase();
    for text in [printed.clone(), plain.clone(), format!("sha256Fingerprint={printed}")] {
        let config = load(&format!("--apic-fingerprint {text}"), &[]).unwrap();
        let Verify::Fingerprints(all) = config.apic_tls.verify else { panic!() };
        assert_eq!(all[0].iter().map(|it| format!("{it:02x}")).collect::<String>(), plain);
    }
    let two = load(&format!("--apic-fingerprint {printed},{plain} --apic-fingerprint {printed}"), &[]).unwrap();
    assert!(matches!(two.apic_tls.verify, Verify::Fingerprints(all) if all.len() == 3));
}

fn parsed(words: &str, environment: &[(&str, &str)]) -> Result<Invocation, (u8, String)> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let parsed = cli::parse(words.split_whitespace().map(OsString::from), &environment);
    parsed.map_err(|error| (error.code, error.message))
}

/// X4: an invalid command line is one sentence; 64 for an invalid argument or an unknown variable, 78 for an invalid
/// value of a variable.
#[test]
fn wrong_command_lines() {
    for (words, environment, code, complaint) in [
        ("", &[][..], 64, "missing command; the commands are run, plan, explain, check, status, purge"),
        ("dance", &[], 64, "unknown command \"dance\""),
        ("run run", &[], 64, "unexpected argument \"run\""),
        ("run --color", &[], 64, "unknown flag --color"),
        ("run -x", &[], 64, "unknown flag -x"),
        // A flag of a later version is not accepted and ignored.
        ("run --listens 5", &[], 64, "unknown flag --listens"),
        ("run --policy", &[], 64, "--policy needs a value"),
        ("run --policy=", &[], 64, "--policy: empty value"),
        ("run --policy sync --policy sync", &[], 64, "--policy given more than once"),
        ("run --apic-insecure=maybe", &[], 64, "--apic-insecure: \"maybe\" is neither"),
        ("run --apic a,,b", &[], 64, "--apic: empty value"),
        ("plan --once", &[], 64, "--once is valid with run"),
        ("check --once", &[], 64, "--once is valid with run"),
        ("version --batch 5", &[], 64, "--batch is valid with run, plan, explain, check and purge only"),
        ("help --apic-insecure", &[], 64, "--apic-insecure is valid with run, plan, "),
        ("run", &[("ACI_SYNC_LISTENS", "5")], 64, "unknown variable ACI_SYNC_LISTENS"),
        ("status --policy sync", &[], 64, "--policy is valid with run, plan, explain, check and purge only"),
        ("run -o json", &[], 64, "--output is valid with plan, explain, check, status and purge only"),
        ("run --yes", &[], 64, "--yes is valid with purge only"),
        ("plan --legacy", &[], 64, "--legacy is valid with purge only"),
        ("status --yes", &[], 64, "--yes is valid with purge only"),
        ("purge", &[("ACI_SYNC_YES", "true")], 64, "unknown variable ACI_SYNC_YES"),
        ("purge", &[("ACI_YES", "true"), ("ACI_SYNC_LEGACY", "true")], 64, "unknown variable ACI_SYNC_LEGACY"),
        ("plan --discover", &[], 64, "--discover is valid with check only"),
        ("plan T/L", &[], 64, "unexpected argument \"T/L\""),
        ("plan --wait 5s", &[], 64, "--wait is valid with explain only"),
        ("plan", &[("ACI_SYNC_", "")], 64, "unknown variable ACI_SYNC_"),
        ("run", &[("ACI_POLICY", "observe")], 64, "unknown variable ACI_POLICY; did you mean ACI_SYNC_POLICY?"),
        ("run", &[("aci_sync_policy", "observe")], 64, "unknown variable aci_sync_policy"),
        ("run", &[("ACI_SYNC_KEEP_CONTRACTED", "yes")], 78, "ACI_SYNC_KEEP_CONTRACTED: \"yes\" is neither"),
        ("run", &[("ACI_APIC", "a,,b")], 78, "ACI_APIC: empty value"),
    ] {
        let (got, why) = parsed(words, environment).unwrap_err();
        assert!(got == code && why.contains(complaint) && !why.contains('\n'), "{words:?}: {got} {why}");
    }
}

/// Names: a flag wins over its variable, that over the older name; lists come either way; an empty variable is none.
#[test]
fn precedence() {
    let all = [("ACI_APIC", "c"), ("ACI_SYNC_APIC", "b1, b2")];
    let apic = |words: &str, environment: &[(&str, &str)]| {
        let given = parsed(words, environment).unwrap().get("apic").unwrap().clone();
        (given.origin, given.by_flag, given.values.join(" "))
    };
    let expected = |origin: &str, by_flag: bool, values: &str| (origin.to_owned(), by_flag, values.to_owned());
    assert_eq!(apic("run --apic a1,a2 --apic=a3", &all), expected("--apic", true, "a1 a2 a3"));
    assert_eq!(apic("run", &all), expected("ACI_SYNC_APIC", false, "b1 b2"));
    assert_eq!(apic("run", &all[..1]), expected("ACI_APIC", false, "c"));
    assert_eq!(apic("run", &[all[0], ("ACI_SYNC_APIC", "")]), expected("ACI_APIC", false, "c"));
    let on = [("ACI_SYNC_APIC_INSECURE", "true")];
    for (words, environment, is_on) in [
        ("run", &[][..], false),
        ("run --apic-insecure", &[], true),
        ("run --apic-insecure=true", &[], true),
        ("run", &on, true),
        ("run --apic-insecure=false", &on, false),
    ] {
        assert_eq!(parsed(words, environment).unwrap().is_on("apic-insecure"), is_on, "{words} {environment:?}");
    }
    assert!(parsed("plan", &[("ACI_SYNC_ONCE", "true")]).is_ok(), "one set of variables serves run and plan");
}

/// The man page has every command, flag and variable, and no line is a roff request by mistake.
#[test]
fn the_man_page_is_complete() {
    let page = manual::man();
    for flag in cli::FLAGS {
        assert!(page.contains(&format!("\\-\\-{}\\fR", flag.name.replace('-', "\\-"))), "{}", flag.name);
    }
    for CommandInfo { name, help, .. } in cli::COMMANDS {
        assert_eq!(page.contains(&format!(".TP\n\\fB{name}\\fR")), !help.is_empty(), "{name}");
    }
    for (name, _) in cli::VARIABLES {
        assert!(page.contains(&name.replace("-", "\\-")), "{name}");
    }
    let requests = [".TH", ".SH", ".TP", ".PP", ".B", ".I", ".RI", ".BR", ".nf", ".fi"];
    for line in page.lines().filter(|it| it.starts_with(['.', '\''])) {
        assert!(requests.contains(&line.split(' ').next().unwrap()), "{line}");
    }
}

/// docs/configuration.md shows the table of flags; `BLESS=1` writes it.
#[test]
fn the_configuration_page_has_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once("<!-- flags -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /flags -->").unwrap();
    let right = format!("{before}<!-- flags -->\n{}<!-- /flags -->{after}", manual::markdown());
    if page != right && std::env::var_os("BLESS").is_some() {
        return std::fs::write(path, right).unwrap();
    }
    assert_eq!(page, right, "BLESS=1 writes it");
}

/// X6: one record is one line, without control characters for a terminal.
#[test]
fn control_characters_are_escaped() {
    assert_eq!(logging::one_line("a\nb\u{1b}[31m\u{202e}é"), "a\\nb\\u{1b}[31m\\u{202e}é");
}

/// The help has every flag, and an annotation that is valid, as the man page has.
#[test]
fn the_help_has_every_flag_and_an_example() {
    for flag in cli::FLAGS {
        assert!(manual::help().contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
    assert!(binding::parse(manual::EXAMPLE_BINDING, None).unwrap().unknown_keys.is_empty());
    let annotation = format!("aci.haystacknetworks.com/l3o='{}'", manual::EXAMPLE_BINDING);
    assert!(manual::help().contains(&annotation));
    assert!(manual::man().contains(&annotation.replace('\'', "\\(aq")));
}

/// The help of a command has its arguments, its exit codes and the flags that are its own, in lines that fit a terminal;
/// the settings of a run are in the help of `run`.
#[test]
fn the_help_of_a_command() {
    let help = |name: &str| manual::help_of(cli::COMMANDS.iter().find(|it| it.name == name).unwrap());
    let flags = |text: &str| -> Vec<String> {
        let names = text.lines().filter_map(|line| line.strip_prefix("  --"));
        names.filter_map(|it| it.split(' ').next()).map(str::to_owned).collect()
    };
    for (name, usage, expected) in [
        ("plan", "plan [FLAGS]", &["output"][..]),
        ("explain", "explain SUBJECT [FLAGS]", &["output", "wait"]),
        ("check", "check [TENANT/L3OUT ...] [FLAGS]", &["output", "discover"]),
        ("status", "status [FLAGS]", &["listen", "output"]),
        ("purge", "purge [TENANT/L3OUT ...] [FLAGS]", &["output", "yes", "legacy"]),
        ("version", "version", &[]),
        ("help", "help [COMMAND]", &[]),
    ] {
        let text = help(name);
        assert_eq!(text.lines().next(), Some(format!("Usage: aci-sync {usage}").as_str()));
        assert_eq!(flags(&text), expected, "{text}");
        let has_settings = matches!(name, "plan" | "explain" | "check" | "purge");
        assert_eq!(text.contains("aci-sync help run"), has_settings, "{text}");
    }
    let of_run = cli::FLAGS.iter().filter(|it| it.commands.contains(&cli::Command::Run)).map(|it| it.name);
    assert_eq!(flags(&help("run")), of_run.collect::<Vec<_>>());
    assert!(help("plan").replace("\n", " ").contains("(exit code 0: no changes, 2: changes, 3: none, but"));
    let wide = |line: &&str| line.chars().count() > 80 && line.contains(' ');
    let texts = cli::COMMANDS.iter().map(manual::help_of);
    for text in texts {
        assert_eq!(text.lines().find(wide), None);
    }
}

/// Each shell's completions have every command and flag that people type, and no other command.
#[test]
fn the_completions_are_complete() {
    for (shell, make) in cli::completions::SHELLS {
        let text = make();
        let words: Vec<&str> = text.split(|it: char| !it.is_alphanumeric() && it != '-').collect();
        for flag in cli::FLAGS {
            let form = if shell == "fish" { format!(" -l {} ", flag.name) } else { format!("--{}", flag.name) };
            assert!(text.contains(&form), "{shell}: {}", flag.name);
            assert!(flag.values.iter().all(|it| words.contains(it)), "{shell}: {:?}", flag.values);
        }
        for CommandInfo { name, help, .. } in cli::COMMANDS {
            assert_eq!(words.contains(name), !help.is_empty(), "{shell}: {name}");
        }
    }
}

/// The closed sets in the table are those that are accepted: each value is, and an error names no other.
/// Those of `--output` are tested with the commands, in `tests/e2e/completions.rs`.
#[test]
fn the_table_has_the_values_that_are_accepted() {
    let environment: BTreeMap<String, String> = [("ACI_USERNAME", "a"), ("ACI_PASSWORD", "b"), ("ACI_APIC", "c")]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    let mut count = 0;
    for flag in cli::FLAGS.iter().filter(|it| !it.values.is_empty() && it.name != "output") {
        let load = |value: &str| {
            let words = ["run".to_owned(), format!("--{}={value}", flag.name)].map(OsString::from);
            let invocation = cli::parse(words, &environment).unwrap();
            config::log_format(&invocation).and_then(|_| config::load(&invocation, &environment))
        };
        let values = flag.values.join(",");
        let several = matches!(flag.shape, cli::Shape::Many(_));
        let accepted = if several { vec![values.as_str()] } else { flag.values.to_vec() };
        assert!(accepted.into_iter().all(|it| load(it).is_ok()), "{}", flag.name);
        let why = load("nonsense").unwrap_err().message;
        assert!(flag.values.iter().all(|it| why.contains(it)), "{why}");
        count += 1;
    }
    assert_eq!(count, 6);
}
