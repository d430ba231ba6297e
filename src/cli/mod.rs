//! The one table of commands, flags and variables, and the parser of the command line. The texts that are made from the
//! table are in `manual` (help, man page, `docs/configuration.md`) and `completions`; values are checked in `config`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::exit::ExitError;

pub mod completions;
pub mod manual;

/// The program's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Keep the fabric in sync until a signal.
    Run,
    /// Print what a run would change.
    Plan,
    /// Print why an object is in the fabric, or why not.
    Explain,
    /// Check settings, rights and both peers before a run.
    Check,
    /// Delete what carries the owner annotation.
    Purge,
    /// Print the state of the running daemon.
    Status,
    /// Print the version and the build.
    Version,
    /// Print the version in one line.
    VersionLine,
    /// Print the help.
    Help,
    /// Print the man page.
    Man,
    /// Print the completions of a shell.
    Completions,
    /// Check that this build can be trusted.
    SelfTest,
}

/// The words for commands, each with its help. A command without help is for scripts and is not listed.
pub const COMMANDS: &[(&str, Command, &str)] = &[
    ("run", Command::Run, "keep the fabric in sync with the cluster until SIGTERM"),
    (
        "plan",
        Command::Plan,
        "print what a run would change and why, without writing (exit code 0: no changes, 2: changes, 3: none, but something desired is missing)",
    ),
    (
        "explain",
        Command::Explain,
        "print why SUBJECT is in the fabric or why not, without writing; SUBJECT is NAMESPACE/NAME, KIND/NAMESPACE/NAME, an address or a DN (exit code 0: as it should be, 2: not, 1: unknown)",
    ),
    (
        "check",
        Command::Check,
        "check settings, rights, cluster and fabric, without writing; TENANT/L3OUT ... adds L3Outs (exit code 0: nothing failed, 1: a check failed, 78: the settings are wrong)",
    ),
    (
        "status",
        Command::Status,
        "print the state of the running daemon (exit code 0: in sync or standby, 2: neither, 1: no daemon answers)",
    ),
    (
        "purge",
        Command::Purge,
        "delete the EPGs and subnets that carry the owner annotation of this cluster, and its tags, after a plan and your consent; TENANT/L3OUT ... narrows it (exit code 0: nothing left, 1: something is left, or refused, 2: planned only)",
    ),
    ("version", Command::Version, "print version, commit, target, compiler and OpenSSL"),
    ("help", Command::Help, "print this help"),
    ("man", Command::Man, "print the man page"),
    ("completions", Command::Completions, "print completions for a shell: bash, zsh or fish"),
    ("self-test", Command::SelfTest, ""),
];

/// The flags of `status`.
const STATUS_FLAGS: [&str; 2] = ["listen", "output"];

/// What a flag's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `--x` or `--x=false`.
    Switch,
    /// One value, with its name for the help.
    One(&'static str),
    /// Several values: the flag again, or a comma list.
    Many(&'static str),
}

/// One flag; its variable is `ACI_SYNC_` with its name.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// The name without the dashes.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// An older variable with the same meaning.
    pub older: Option<&'static str>,
    /// Whether it has a variable, too. What must be typed each time has none.
    pub has_variable: bool,
    /// The default, as the help shows it.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
    /// All values, if they are a closed set.
    pub values: &'static [&'static str],
}

impl Flag {
    const fn values(self, values: &'static [&'static str]) -> Flag {
        Flag { values, ..self }
    }

    /// The values of a closed set that a command takes.
    pub fn values_with(&self, command: Command) -> impl Iterator<Item = &'static str> {
        self.values.iter().copied().filter(move |value| match *value {
            "apic" => command == Command::Plan,
            "prometheus" => command == Command::Status,
            _ => true,
        })
    }
}

const fn flag(name: &'static str, shape: Shape, default: &'static str, help: &'static str) -> Flag {
    Flag { name, shape, older: None, has_variable: true, default, help, values: &[] }
}

/// All flags, in the order of the help.
pub const FLAGS: &[Flag] = &[
    flag(
        "kubeconfig",
        Shape::One("FILE"),
        "`KUBECONFIG`, `~/.kube/config`, in-cluster",
        "The kubeconfig file: the API server and the credentials for it.",
    ),
    flag("context", Shape::One("NAME"), "the kubeconfig's current-context", "The kubeconfig context."),
    Flag {
        older: Some("ACI_APIC"),
        ..flag("apic", Shape::Many("HOST[:PORT]"), "none", "The APIC controllers, tried in turn.")
    },
    flag(
        "apic-ca",
        Shape::One("FILE"),
        "the system's roots",
        "PEM file with trusted certificates: a root or intermediate CA of the APIC's certificate, or that certificate itself.",
    ),
    flag(
        "apic-fingerprint",
        Shape::Many("SHA256"),
        "none",
        "SHA-256 fingerprints of trusted APIC certificates; their chain and name are not checked.",
    ),
    flag(
        "apic-insecure",
        Shape::Switch,
        "false",
        "Trust any APIC certificate. An attacker between aci-sync and the APIC can take over the login.",
    ),
    flag(
        "apic-rate",
        Shape::One("N"),
        "`20`",
        "The maximum of requests per second to the APIC, 1-1000, after a burst of 20; `off`: no limit.",
    ),
    flag(
        "parallel",
        Shape::One("N"),
        "`4`",
        "The maximum of requests to the APIC that are in flight at the same time, 1-8, each about another EPG or L3Out.",
    ),
    flag(
        "password-file",
        Shape::One("FILE"),
        "`$CREDENTIALS_DIRECTORY/apic-password`, `ACI_PASSWORD`",
        "The file with the APIC password.",
    ),
    flag(
        "apic-certificate-dn",
        Shape::One("DN"),
        "none: login with a password",
        "Login by certificate: the DN of the user's certificate, `uni/userext/user-USER/usercert-NAME`; needs `--apic-private-key-file` and excludes a password.",
    ),
    flag(
        "apic-private-key-file",
        Shape::One("FILE"),
        "none",
        "The private key of that certificate: RSA, PEM (PKCS#8 or PKCS#1), without a password.",
    ),
    flag(
        "cluster-id",
        Shape::One("ID"),
        "the UID of the namespace `kube-system`",
        "The cluster id in the owner annotation: 1-40 letters, digits and `_.-`. It must never change.",
    ),
    flag(
        "adopt-id",
        Shape::Many("ID"),
        "none",
        "Former cluster ids: desired objects with their owner annotation are taken over.",
    ),
    flag(
        "workloads",
        Shape::Many("KINDS"),
        "`deployments`",
        "The kinds of workloads whose annotation counts: `deployments`, `statefulsets`, `daemonsets`. Each needs the right to list and watch it.",
    ).values(&["deployments", "statefulsets", "daemonsets"]),
    flag(
        "expose",
        Shape::Many("WHAT"),
        "`pods,services`",
        "Whose addresses are exposed if the annotation has no `expose`: `pods`, `services`.",
    ).values(&["pods", "services"]),
    flag(
        "addresses",
        Shape::Many("CIDR"),
        "all others",
        "The address ranges that may be exposed. Loopback, link-local, multicast and other special addresses never are.",
    ),
    flag("subnet-scope", Shape::Many("FLAG"), "`import-security`", "The scope flags of owned subnets.").values(&["export-rtctrl", "import-security", "import-rtctrl", "shared-rtctrl", "shared-security"]),
    flag(
        "epg-grace",
        Shape::One("DURATION"),
        "`60s`",
        "How long an owned EPG stays after its last workload is gone.",
    ),
    flag("keep-contracted", Shape::Switch, "false", "Keep an owned EPG that has contract relations, without its subnets."),
    flag(
        "restore-contracts",
        Shape::Switch,
        "false",
        "Put back the contract relations of an owned EPG that another writer deleted, as they were in that moment.",
    ),
    flag(
        "policy",
        Shape::One("POLICY"),
        "`sync`",
        "`sync`: create, update and delete; `upsert-only`: never delete; `observe`: never write, log what would change.",
    ).values(&["sync", "upsert-only", "observe"]),
    flag(
        "max-deletes",
        Shape::One("LIMIT"),
        "`30%`",
        "The deletion guard: a full sync that would delete more owned objects, or a start that would move more, blocks that until SIGUSR2; `N`, `N%` (never less than 10 objects) or `off`.",
    ),
    flag(
        "default-l3out",
        Shape::One("TENANT/L3OUT"),
        "none",
        "The L3Out of annotations without `tenant` and `l3out`, such as `{\"epg\":\"EPG_X\"}`.",
    ),
    flag(
        "allow",
        Shape::Many("NS=TENANT/L3OUT[/EPG]"),
        "all but the tenants infra and mgmt",
        "Which namespaces may use which EPGs, with `*` and `?` in NS and EPG. With this flag, everything else is refused.",
    ),
    flag(
        "max-epgs",
        Shape::One("N"),
        "`100`",
        "The maximum of EPGs for one namespace; younger workloads beyond it get none; `off`: no limit.",
    ),
    flag(
        "foreign-epg",
        Shape::One("HOW"),
        "`use`",
        "An EPG that aci-sync does not own: `use`: workloads may put their subnets into it; `refuse`: they may not.",
    ).values(&["use", "refuse"]),
    flag("batch", Shape::One("N"), "`500`", "The maximum of objects in one write request, 1-1000."),
    flag(
        "listen",
        Shape::Many("ADDRESS"),
        "`unix:$RUNTIME_DIRECTORY/aci-sync.sock` under systemd, else `off`",
        "Where the status server listens: `HOST:PORT`, `[v6]:PORT`, `:PORT` (all addresses), `unix:/PATH`, or `off`.",
    ),
    flag(
        "output",
        Shape::One("FORMAT"),
        "`text`",
        "With `check`, `explain`, `plan`, `purge` and `status`, also as `-o`: `text` or `json` (with `purge` the undo file); with `plan` also `apic` (the requests of a run, and their undo), with `status` also `prometheus` (the metrics).",
    ).values(&["text", "json", "apic", "prometheus"]),
    flag(
        "discover",
        Shape::Switch,
        "false",
        "With `check`: find the L3Outs that the nodes are behind, instead of all checks; exit code 0 if it is one, 2 if not.",
    ),
    flag("wait", Shape::One("DURATION"), "`0`", "With `explain`: how long to wait until the subject is in sync."),
    flag(
        "log-format",
        Shape::One("FORMAT"),
        "`text`",
        "`text`: a sentence and key=value pairs; `json`: one object a line, with `time`, `level`, `message` and the keys.",
    ).values(&["text", "json"]),
    flag(
        "resync",
        Shape::One("DURATION"),
        "`10m`",
        "The interval of full syncs, at least `10s`. Changes between them are applied at once.",
    ),
    flag(
        "leader-elect",
        Shape::Switch,
        "false",
        "With `run`: write only while holding a Lease in the cluster, so that each control plane node can run aci-sync.",
    ),
    flag("lease-namespace", Shape::One("NAME"), "`kube-system`", "The namespace of that Lease."),
    flag("lease-name", Shape::One("NAME"), "`aci-sync`", "The name of that Lease."),
    flag(
        "events",
        Shape::Switch,
        "true",
        "Write findings as Kubernetes Events, but not with `observe`, `plan` and `--once`.",
    ),
    flag(
        "once",
        Shape::Switch,
        "false",
        "With `run`: one full sync with its writes, then exit; exit code 0 if nothing is left to do.",
    ),
    Flag {
        has_variable: false,
        ..flag("yes", Shape::Switch, "false", "With `purge`: the consent to the plan, without a question.")
    },
    Flag {
        has_variable: false,
        ..flag(
            "legacy",
            Shape::Switch,
            "false",
            "With `purge TENANT/L3OUT ...`: also what carries the mark `orchestrator:aci-k8-haystack` or the owner annotation of an `--adopt-id`.",
        )
    },
];

/// Variables that belong to no flag, each with its help.
pub const VARIABLES: &[(&str, &str)] = &[
    ("ACI_USERNAME", "The APIC user; with a login domain: `apic:DOMAIN\\user`. Not needed with a certificate."),
    ("ACI_PASSWORD", "The APIC password. A file or a systemd credential is safer."),
    ("ACI_APIC", "The same as `ACI_SYNC_APIC`."),
    ("KUBECONFIG", "The kubeconfig files, separated by colons."),
    ("RUST_LOG", "The log level: `error`, `warn` (default of `plan`), `info` (default of `run`) or `debug`."),
];

/// A command with its flags, each value with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The command.
    pub command: Command,
    /// The words after the command.
    pub arguments: Vec<String>,
    /// The file of the service's settings, if they count.
    pub settings_file: Option<PathBuf>,
    values: BTreeMap<&'static str, Given>,
}

/// The values given for one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// `--flag`, or the variable's name.
    pub origin: String,
    /// Whether it was given on the command line.
    pub by_flag: bool,
    /// The values; a switch has `true` or `false`.
    pub values: Vec<String>,
}

impl Given {
    /// The error for an invalid value: exit code 64 for a flag, 78 for a variable.
    pub(crate) fn invalid(&self, why: impl fmt::Display) -> ExitError {
        let message = format!("{}: {why}", self.origin);
        if self.by_flag { ExitError::usage(message) } else { ExitError::config(message) }
    }
}

impl Invocation {
    fn of(command: Command) -> Invocation {
        Invocation { command, arguments: Vec::new(), settings_file: None, values: BTreeMap::new() }
    }

    /// The values given for a flag.
    pub fn get(&self, flag: &str) -> Option<&Given> {
        self.values.get(flag)
    }

    /// Takes the values of variables for the flags that have none. `origin` is what an error says before a variable's name.
    pub fn add_variables(
        &mut self,
        variables: &BTreeMap<String, String>,
        origin: &dyn Fn(&str) -> String,
    ) -> Result<(), ExitError> {
        from_variables(variables, origin, &mut self.values)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, flag: &str) -> bool {
        self.get(flag).is_some_and(|it| it.values.iter().any(|it| it == "true"))
    }
}

/// The name of a flag's variable.
pub fn variable(flag: &str) -> String {
    format!("ACI_SYNC_{}", flag.to_uppercase().replace('-', "_"))
}

/// The environment as text. A variable of aci-sync that is not UTF-8 is an error, because it must not be ignored.
pub fn environment(all: impl IntoIterator<Item = (OsString, OsString)>) -> Result<BTreeMap<String, String>, ExitError> {
    let mut texts = BTreeMap::new();
    for (name, value) in all {
        let name = name.to_string_lossy().into_owned();
        match value.into_string() {
            Ok(value) => drop(texts.insert(name, value)),
            Err(_) if name.starts_with("ACI_") => return Err(ExitError::config(format!("{name} is not UTF-8"))),
            Err(_) => {}
        }
    }
    Ok(texts)
}

/// Parses the command line and the environment. A flag wins over its variable, and the variable over the older name.
/// `--help` and `--version` win over any error after them.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, ExitError> {
    let usage = |why: String| ExitError::usage(format!("{why}; see aci-sync help"));
    let (mut command, mut subjects) = (None, Vec::new());
    let mut values: BTreeMap<&'static str, Given> = BTreeMap::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    let text = |value: OsString| value.into_string().map_err(|it| usage(format!("argument {it:?} is not UTF-8")));
    while let Some(argument) = parser.next().map_err(|error| usage(error.to_string()))? {
        match argument {
            lexopt::Arg::Value(word) if command.is_none() => command = Some(command_of(&text(word)?)?),
            lexopt::Arg::Value(word)
                if matches!(
                    command,
                    Some(Command::Check | Command::Completions | Command::Explain | Command::Purge)
                ) =>
            {
                subjects.push(text(word)?)
            }
            lexopt::Arg::Value(word) => return Err(usage(format!("unexpected argument {:?}", text(word)?))),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(Invocation::of(Command::Help)),
            lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => return Ok(Invocation::of(Command::VersionLine)),
            lexopt::Arg::Short(short) if short != 'o' => return Err(usage(format!("unknown flag -{short}"))),
            lexopt::Arg::Short(_) | lexopt::Arg::Long(_) => {
                let name = if let lexopt::Arg::Long(name) = argument { name } else { "output" };
                let Some(flag) = FLAGS.iter().find(|it| it.name == name) else {
                    return Err(usage(format!("unknown flag --{name}")));
                };
                let name = flag.name;
                let value = match flag.shape {
                    Shape::Switch => parser.optional_value().map_or_else(|| Ok("true".to_owned()), text)?,
                    _ => text(parser.value().map_err(|_| usage(format!("--{name} needs a value")))?)?,
                };
                let origin = format!("--{name}");
                let new = read(flag, &origin, true, &value)?;
                match values.get_mut(flag.name) {
                    Some(given) if matches!(flag.shape, Shape::Many(_)) => given.values.extend(new.values),
                    Some(_) => return Err(usage(format!("--{name} given more than once"))),
                    None => drop(values.insert(flag.name, new)),
                }
            }
        }
    }
    let Some(command) = command else {
        return Err(ExitError::usage(format!("missing command; {}", known_commands())));
    };
    if command != Command::Run && values.contains_key("once") {
        return Err(usage("--once is valid with run only".to_owned()));
    }
    if let Some(flag) = ["yes", "legacy"].iter().find(|it| command != Command::Purge && values.contains_key(**it)) {
        return Err(usage(format!("--{flag} is valid with purge only")));
    }
    if command != Command::Explain && values.contains_key("wait") {
        return Err(usage("--wait is valid with explain only".to_owned()));
    }
    match command {
        Command::Run if values.contains_key("output") => {
            return Err(usage("--output is valid with check, explain, plan, purge and status only".to_owned()));
        }
        Command::Run | Command::Plan | Command::Check | Command::Explain | Command::Purge => {}
        Command::Status => {
            if let Some(flag) = values.keys().find(|flag| !STATUS_FLAGS.contains(flag)) {
                return Err(usage(format!("--{flag} is not valid with status")));
            }
        }
        command => {
            return match values.keys().next() {
                Some(flag) => Err(usage(format!("--{flag} is not valid with this command"))),
                None => Ok(Invocation { arguments: subjects, ..Invocation::of(command) }),
            };
        }
    }
    let mut invocation = Invocation { arguments: subjects, values, ..Invocation::of(command) };
    invocation.add_variables(environment, &|_| String::new())?;
    Ok(invocation)
}

/// The flags that have a variable.
pub fn with_variables() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| flag.has_variable)
}

fn from_variables(
    environment: &BTreeMap<String, String>,
    origin: &dyn Fn(&str) -> String,
    values: &mut BTreeMap<&'static str, Given>,
) -> Result<(), ExitError> {
    for name in environment.keys() {
        let upper = name.to_ascii_uppercase();
        let is_known =
            with_variables().any(|flag| variable(flag.name) == *name || flag.older.is_some_and(|it| it == name));
        if upper.starts_with("ACI_SYNC_") && !is_known {
            return Err(ExitError::usage(format!("{}unknown variable {name}; see aci-sync help", origin(name))));
        }
        // ACI_POLICY is meant for aci-sync: ignoring it would silently use the default.
        let meant = with_variables().map(|flag| variable(flag.name)).find(|it| it.replace("_SYNC_", "_") == upper);
        if let Some(meant) = meant.filter(|_| !is_known) {
            return Err(ExitError::usage(format!("{}unknown variable {name}; did you mean {meant}?", origin(name))));
        }
    }
    for flag in with_variables() {
        let names = [Some(variable(flag.name)), flag.older.map(str::to_owned)];
        for name in names.into_iter().flatten() {
            let Some(value) = environment.get(&name).filter(|it| !it.is_empty()) else { continue };
            if !values.contains_key(flag.name) {
                values.insert(flag.name, read(flag, &(origin(&name) + &name), false, value)?);
            }
        }
    }
    Ok(())
}

fn read(flag: &Flag, origin: &str, by_flag: bool, value: &str) -> Result<Given, ExitError> {
    let values = match flag.shape {
        Shape::Many(_) => value.split(',').map(|it| it.trim().to_owned()).collect(),
        _ => vec![value.to_owned()],
    };
    let given = Given { origin: origin.to_owned(), by_flag, values };
    if given.values.iter().any(String::is_empty) {
        return Err(given.invalid("empty value"));
    }
    if flag.shape == Shape::Switch && !matches!(value, "true" | "false") {
        return Err(given.invalid(format!("{value:?} is neither true nor false")));
    }
    Ok(given)
}

/// The commands that people type, as a sentence.
fn known_commands() -> String {
    let names: Vec<&str> = COMMANDS.iter().filter(|(.., help)| !help.is_empty()).map(|it| it.0).collect();
    let (last, others) = names.split_last().unwrap_or((&"", &[]));
    format!("the commands are {} and {last}", others.join(", "))
}

fn command_of(word: &str) -> Result<Command, ExitError> {
    let found = COMMANDS.iter().find(|(name, ..)| *name == word).map(|(_, command, _)| *command);
    found.ok_or_else(|| ExitError::usage(format!("unknown command {word:?}; {}", known_commands())))
}
