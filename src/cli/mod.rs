//! The one table of commands, flags and variables, and the reading of the command line by it. What people read of it
//! is the manual's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use crate::exit::ExitError;

pub mod manual;

/// The program's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Keep the fabric in step until a signal.
    Run,
    /// Tell what a run would change.
    Plan,
    /// Tell the version, and what the program was built from.
    Version,
    /// Tell the version in one line.
    VersionLine,
    /// Tell how the program is used.
    Help,
    /// Print the man page.
    Man,
    /// Liveness whether this build can be trusted.
    SelfTest,
}

/// The words for commands, each with what it does; what has nothing to tell is for scripts and not in the help.
pub const COMMANDS: &[(&str, Command, &str)] = &[
    ("run", Command::Run, "keep the fabric in step until SIGTERM"),
    (
        "plan",
        Command::Plan,
        "tell what a run would change, and why; sends nothing but reads (exit 0: nothing, 2: changes)",
    ),
    ("version", Command::Version, "tell the version, and what it was built from"),
    ("help", Command::Help, "tell this"),
    ("man", Command::Man, ""),
    ("self-test", Command::SelfTest, ""),
];

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
    /// The older variable that means the same, where there is one.
    pub older: Option<&'static str>,
    /// The default, for people.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
}

const fn flag(name: &'static str, shape: Shape, default: &'static str, help: &'static str) -> Flag {
    Flag { name, shape, older: None, default, help }
}

/// All flags, in the order of the help.
pub const FLAGS: &[Flag] = &[
    flag(
        "kubeconfig",
        Shape::One("FILE"),
        "`KUBECONFIG`, `~/.kube/config`, in-cluster",
        "Where the API server is and who we are there.",
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
        "PEM bundle of what is trusted: a root or intermediate CA of the APIC's certificate, or that certificate itself.",
    ),
    flag(
        "apic-fingerprint",
        Shape::Many("SHA256"),
        "none",
        "SHA-256 fingerprints of the APIC certificates that are trusted, whatever their chain and name.",
    ),
    flag(
        "apic-insecure",
        Shape::Switch,
        "false",
        "Trust any APIC certificate. Whoever is in between gets the password.",
    ),
    flag(
        "apic-rate",
        Shape::One("N"),
        "`20`",
        "The most requests a second to the APIC, 1-1000, after a burst of 20; `off`: no limit.",
    ),
    flag(
        "password-file",
        Shape::One("FILE"),
        "`$CREDENTIALS_DIRECTORY/apic-password`, `ACI_PASSWORD`",
        "The file that holds the APIC password.",
    ),
    flag(
        "cluster-id",
        Shape::One("ID"),
        "the UID of the namespace `kube-system`",
        "What our owner mark carries: 1-40 of letters, digits and `_.-`. It must never change.",
    ),
    flag(
        "adopt-id",
        Shape::Many("ID"),
        "none",
        "Former cluster ids: what bears their mark is taken over where it is desired.",
    ),
    flag(
        "expose",
        Shape::Many("WHAT"),
        "`pods,services`",
        "What a Deployment exports whose annotation does not say: the addresses of its `pods`, of its `services`.",
    ),
    flag(
        "addresses",
        Shape::Many("CIDR"),
        "all others",
        "Which addresses may be exposed at all. Loopback, link-local, multicast and other special ones never are.",
    ),
    flag("subnet-scope", Shape::Many("FLAG"), "`import-security`", "The scope flags that our subnets always have."),
    flag(
        "epg-grace",
        Shape::One("DURATION"),
        "`60s`",
        "How long an EPG of ours stays after its last Deployment has gone.",
    ),
    flag("keep-contracted", Shape::Switch, "false", "An unwanted EPG of ours that has contracts stays, empty."),
    flag(
        "policy",
        Shape::One("POLICY"),
        "`sync`",
        "`sync` does all, `upsert-only` never deletes, `observe` never writes and tells what it would.",
    ),
    flag(
        "max-deletes",
        Shape::One("LIMIT"),
        "`30%`",
        "A comparison that would delete more of our objects at once holds them: `N`, `N%` (never less than 10), or `off`.",
    ),
    flag(
        "allow",
        Shape::Many("NS=TENANT/L3OUT[/EPG]"),
        "all but the tenants infra and mgmt",
        "Which namespaces may name which EPGs; `*` and `?` in NS and EPG. Where any is given, all else is refused.",
    ),
    flag(
        "max-epgs",
        Shape::One("N"),
        "`100`",
        "The most EPGs that one namespace may have; younger Deployments beyond it get none. `off`: no limit.",
    ),
    flag(
        "foreign-epg",
        Shape::One("HOW"),
        "`use`",
        "`use`: a Deployment may name an EPG that is not ours, and its subnets go into it; `refuse`: it may not.",
    ),
    flag("batch", Shape::One("N"), "`500`", "The most objects in one request, 1-1000."),
    flag(
        "log-format",
        Shape::One("FORMAT"),
        "`text`",
        "`text`: a sentence and key=value pairs; `json`: one object a line, with `time`, `level`, `message` and the keys.",
    ),
    flag("resync", Shape::One("DURATION"), "`10m`", "How often everything is compared, `10s` at least."),
    flag(
        "leader-elect",
        Shape::Switch,
        "false",
        "With `run`: only the process that holds a Lease of the cluster writes, so that every master can run one.",
    ),
    flag("lease-namespace", Shape::One("NAME"), "`kube-system`", "The namespace of that Lease."),
    flag("lease-name", Shape::One("NAME"), "`aci-sync`", "The name of that Lease."),
    flag(
        "events",
        Shape::Switch,
        "true",
        "What people should know becomes Kubernetes Events; never under `observe`, `plan` and `--once`.",
    ),
    flag(
        "once",
        Shape::Switch,
        "false",
        "With `run`: one full comparison with its writes, then exit; 0 if nothing is left to do.",
    ),
];

/// Variables that are no flag's, for people.
pub const VARIABLES: &[(&str, &str)] = &[
    ("ACI_USERNAME", "The APIC user; with a login domain: `apic:DOMAIN\\user`."),
    ("ACI_PASSWORD", "The APIC password. A file or a systemd credential is safer."),
    ("ACI_APIC", "The same as `ACI_SYNC_APIC`."),
    ("KUBECONFIG", "kubeconfig files, separated by colons."),
    ("RUST_LOG", "The log level: `info` by default, `warn` with `plan`; `debug` tells more."),
];

/// A command with its flags, each value with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The command.
    pub command: Command,
    values: BTreeMap<&'static str, Given>,
}

/// The values that were given for one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// `--flag`, or the variable's name.
    pub origin: String,
    /// It came by the command line.
    pub by_flag: bool,
    /// The values; a switch has `true` or `false`.
    pub values: Vec<String>,
}

impl Given {
    /// The value is invalid, wherever it came from.
    pub(crate) fn invalid(&self, why: impl fmt::Display) -> ExitError {
        let message = format!("{}: {why}", self.origin);
        if self.by_flag { ExitError::usage(message) } else { ExitError::config(message) }
    }
}

impl Invocation {
    fn of(command: Command) -> Invocation {
        Invocation { command, values: BTreeMap::new() }
    }

    /// What was given for a flag.
    pub fn get(&self, flag: &str) -> Option<&Given> {
        self.values.get(flag)
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

/// The environment as text. A value of ours that is not UTF-8 is refused: to leave it out would be to ignore it.
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

/// Reads the command line and the environment. A flag wins over its variable, that over the older name.
/// Who asks for help or for the version gets it, whatever else is wrong.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, ExitError> {
    let usage = |why: String| ExitError::usage(format!("{why}; see aci-sync help"));
    let mut command = None;
    let mut values: BTreeMap<&'static str, Given> = BTreeMap::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    let text = |value: OsString| value.into_string().map_err(|it| usage(format!("the argument {it:?} is not UTF-8")));
    while let Some(argument) = parser.next().map_err(|error| usage(error.to_string()))? {
        match argument {
            lexopt::Arg::Value(word) if command.is_none() => command = Some(command_of(&text(word)?)?),
            lexopt::Arg::Value(word) => return Err(usage(format!("one word too many: {:?}", text(word)?))),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(Invocation::of(Command::Help)),
            lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => return Ok(Invocation::of(Command::VersionLine)),
            lexopt::Arg::Short(short) => return Err(usage(format!("there is no flag -{short}"))),
            lexopt::Arg::Long(name) => {
                let Some(flag) = FLAGS.iter().find(|it| it.name == name) else {
                    return Err(usage(format!("there is no flag --{name}")));
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
                    Some(_) => return Err(usage(format!("--{name} stands there twice"))),
                    None => drop(values.insert(flag.name, new)),
                }
            }
        }
    }
    let Some(command) = command else {
        return Err(ExitError::usage("which command? run, plan, version or help"));
    };
    if command != Command::Run && values.contains_key("once") {
        return Err(usage("--once goes with run only".to_owned()));
    }
    if !matches!(command, Command::Run | Command::Plan) {
        return match values.keys().next() {
            Some(flag) => Err(usage(format!("--{flag} goes with run and plan only"))),
            None => Ok(Invocation::of(command)),
        };
    }
    from_environment(environment, &mut values)?;
    Ok(Invocation { command, values })
}

fn from_environment(
    environment: &BTreeMap<String, String>,
    values: &mut BTreeMap<&'static str, Given>,
) -> Result<(), ExitError> {
    for name in environment.keys() {
        let upper = name.to_ascii_uppercase();
        let is_known = FLAGS.iter().any(|flag| variable(flag.name) == *name || flag.older.is_some_and(|it| it == name));
        if upper.starts_with("ACI_SYNC_") && !is_known {
            return Err(ExitError::usage(format!("there is no variable {name}; see aci-sync help")));
        }
        // Who wrote ACI_POLICY meant something, and must not be left with the default.
        let meant = FLAGS.iter().map(|flag| variable(flag.name)).find(|it| it.replace("_SYNC_", "_") == upper);
        if let Some(meant) = meant.filter(|_| !is_known) {
            return Err(ExitError::usage(format!("there is no variable {name}; it is {meant}")));
        }
    }
    for flag in FLAGS {
        let names = [Some(variable(flag.name)), flag.older.map(str::to_owned)];
        for name in names.into_iter().flatten() {
            let Some(value) = environment.get(&name).filter(|it| !it.is_empty()) else { continue };
            if !values.contains_key(flag.name) {
                values.insert(flag.name, read(flag, &name, false, value)?);
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
        return Err(given.invalid("there is an empty value"));
    }
    if flag.shape == Shape::Switch && !matches!(value, "true" | "false") {
        return Err(given.invalid(format!("{value:?} is neither true nor false")));
    }
    Ok(given)
}

fn command_of(word: &str) -> Result<Command, ExitError> {
    let found = COMMANDS.iter().find(|(name, ..)| *name == word).map(|(_, command, _)| *command);
    let why = || format!("there is no command {word:?}; there are run, plan, version and help");
    found.ok_or_else(|| ExitError::usage(why()))
}
