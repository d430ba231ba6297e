//! The one table of commands and flags. Help, the README's table and the reading of the command line come from it.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The program's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Keep the fabric in step until a signal.
    Run,
    /// Tell what a run would change.
    Plan,
    /// Tell the version.
    Version,
    /// Tell how the program is used.
    Help,
}

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
        "PEM bundle of the CAs that the APIC's certificate may come from.",
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
        "Former cluster ids: what bears their mark is taken over where it is wanted.",
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
        "`sync` does all, `upsert-only` never deletes, `observe` never writes.",
    ),
    flag("batch", Shape::One("N"), "`500`", "The most objects in one request, 1-1000."),
    flag("resync", Shape::One("DURATION"), "`10m`", "How often everything is compared, `10s` at least."),
    flag(
        "once",
        Shape::Switch,
        "false",
        "With `run`: one full comparison with its writes, then exit; 0 if nothing is left to do.",
    ),
];

/// Variables that are no flag's, for people.
const VARIABLES: &[(&str, &str)] = &[
    ("ACI_USERNAME", "The APIC user; with a login domain: `apic:DOMAIN\\user`."),
    ("ACI_PASSWORD", "The APIC password. A file or a systemd credential is safer."),
    ("ACI_APIC", "The same as `ACI_SYNC_APIC`."),
    ("KUBECONFIG", "kubeconfig files, separated by colons."),
    ("RUST_LOG", "The log level: `info` by default, `debug` tells more."),
];

/// A wrong command line or environment: one sentence that names the thing and the mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage(pub String);

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

impl Invocation {
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

/// Reads the command line and the environment. A flag wins over its variable, that over the older name.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, Usage> {
    let mut command = None;
    let mut values: BTreeMap<&'static str, Given> = BTreeMap::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    let text = |value: OsString| value.into_string().map_err(|_| Usage("an argument is not UTF-8".to_owned()));
    while let Some(argument) = parser.next().map_err(|error| Usage(format!("{error}; see aci-sync help")))? {
        match argument {
            lexopt::Arg::Value(word) if command.is_none() => command = Some(command_of(&text(word)?)?),
            lexopt::Arg::Value(word) => {
                return Err(Usage(format!("one word too many: {:?}; see aci-sync help", text(word)?)));
            }
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => command = Some(Command::Help),
            lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => command = Some(Command::Version),
            lexopt::Arg::Short(short) => return Err(Usage(format!("there is no flag -{short}; see aci-sync help"))),
            lexopt::Arg::Long(name) => {
                let Some(flag) = FLAGS.iter().find(|it| it.name == name) else {
                    return Err(Usage(format!("there is no flag --{name}; see aci-sync help")));
                };
                let name = flag.name;
                let value = match flag.shape {
                    Shape::Switch => parser.optional_value().map_or_else(|| Ok("true".to_owned()), text)?,
                    _ => {
                        let value =
                            parser.value().map_err(|_| Usage(format!("--{name} needs a value; see aci-sync help")))?;
                        text(value)?
                    }
                };
                let origin = format!("--{name}");
                let new = read(flag, &origin, true, &value)?;
                match values.get_mut(flag.name) {
                    Some(given) if matches!(flag.shape, Shape::Many(_)) => given.values.extend(new.values),
                    Some(_) => return Err(Usage(format!("--{name} stands there twice"))),
                    None => drop(values.insert(flag.name, new)),
                }
            }
        }
    }
    let Some(command) = command else {
        return Err(Usage("which command? run, plan, version or help".to_owned()));
    };
    from_environment(environment, &mut values)?;
    let invocation = Invocation { command, values };
    if let Some(once) = invocation.get("once")
        && once.by_flag
        && command != Command::Run
    {
        return Err(Usage("--once goes with run only".to_owned()));
    }
    Ok(invocation)
}

fn from_environment(
    environment: &BTreeMap<String, String>,
    values: &mut BTreeMap<&'static str, Given>,
) -> Result<(), Usage> {
    for name in environment.keys().filter(|it| it.starts_with("ACI_SYNC_")) {
        if !FLAGS.iter().any(|flag| variable(flag.name) == *name) {
            return Err(Usage(format!("there is no variable {name}; see aci-sync help")));
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

fn read(flag: &Flag, origin: &str, by_flag: bool, value: &str) -> Result<Given, Usage> {
    let values = match flag.shape {
        Shape::Switch => match value {
            "true" | "false" => vec![value.to_owned()],
            _ => return Err(Usage(format!("{origin} is true or false, not {value:?}"))),
        },
        Shape::One(_) => vec![value.to_owned()],
        Shape::Many(_) => value.split(',').map(|it| it.trim().to_owned()).collect(),
    };
    if values.iter().any(String::is_empty) {
        return Err(Usage(format!("{origin} has an empty value")));
    }
    Ok(Given { origin: origin.to_owned(), by_flag, values })
}

fn command_of(word: &str) -> Result<Command, Usage> {
    Ok(match word {
        "run" => Command::Run,
        "plan" => Command::Plan,
        "version" => Command::Version,
        "help" => Command::Help,
        _ => return Err(Usage(format!("there is no command {word:?}; there are run, plan, version and help"))),
    })
}

/// The help text.
pub fn help() -> String {
    let mut text = "\
aci-sync keeps a Cisco ACI fabric in step with the annotated Deployments of a Kubernetes cluster.

Usage: aci-sync COMMAND [FLAGS]

Commands:
  run       keep the fabric in step until SIGTERM
  plan      tell what a run would change, and why; sends nothing but reads (exit 0: nothing, 2: changes)
  version   tell the version
  help      tell this

Flags (each also as a variable: ACI_SYNC_ with its name, such as ACI_SYNC_CLUSTER_ID):
"
    .to_owned();
    for flag in FLAGS {
        let left = match flag.shape {
            Shape::Switch => format!("--{}", flag.name),
            Shape::One(value) => format!("--{} {value}", flag.name),
            Shape::Many(value) => format!("--{} {value},...", flag.name),
        };
        text += &format!("  {left}\n      {} [{}]\n", plain(flag.help), plain(flag.default));
    }
    text += "\nVariables:\n";
    for (name, help) in VARIABLES {
        text += &format!("  {name:<13} {}\n", plain(help));
    }
    text +=
        "\nExit codes: 0 fine, 1 failure, 2 plan found changes, 64 wrong command line, 78 a missing or bad value.\n";
    text
}

fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// The README's table of flags and variables.
pub fn markdown() -> String {
    let mut text = "| flag | default | what |\n| --- | --- | --- |\n".to_owned();
    for flag in FLAGS {
        let value = match flag.shape {
            Shape::Switch => String::new(),
            Shape::One(value) => format!(" {value}"),
            Shape::Many(value) => format!(" {value},..."),
        };
        text += &format!("| `--{}{value}` | {} | {} |\n", flag.name, flag.default, flag.help);
    }
    text += "\n| variable | what |\n| --- | --- |\n";
    for (name, help) in VARIABLES {
        text += &format!("| `{name}` | {help} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str, environment: &[(&str, &str)]) -> Result<Invocation, Usage> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse(words.split_whitespace().map(OsString::from), &environment)
    }

    /// X4: a wrong command line is told in one sentence, whatever is wrong with it.
    #[test]
    fn wrong_command_lines() {
        for (words, environment, complaint) in [
            ("", &[][..], "which command"),
            ("dance", &[], "no command \"dance\""),
            ("run run", &[], "one word too many"),
            ("run --color", &[], "no flag --color"),
            ("run -x", &[], "no flag -x"),
            // Rules that are not built yet have no flag: nothing is accepted and ignored.
            ("run --leader-elect", &[], "no flag --leader-elect"),
            ("run --max-deletes 5", &[], "no flag --max-deletes"),
            ("run --policy", &[], "--policy needs a value"),
            ("run --policy=", &[], "empty value"),
            ("run --policy sync --policy sync", &[], "twice"),
            ("run --apic-insecure=maybe", &[], "true or false"),
            ("run --apic a,,b", &[], "empty value"),
            ("plan --once", &[], "--once goes with run"),
            ("run", &[("ACI_SYNC_EVENTS", "false")], "no variable ACI_SYNC_EVENTS"),
            ("run", &[("ACI_SYNC_KEEP_CONTRACTED", "yes")], "ACI_SYNC_KEEP_CONTRACTED is true or false"),
        ] {
            let Usage(error) = parsed(words, environment).unwrap_err();
            assert!(error.contains(complaint), "{words:?}: {error}");
        }
    }

    /// Names: a flag wins over its variable, that over the older name; lists come either way.
    #[test]
    fn precedence() {
        let all = [("ACI_APIC", "c"), ("ACI_SYNC_APIC", "b1, b2")];
        let apic = |invocation: Result<Invocation, Usage>| invocation.unwrap().get("apic").unwrap().clone();
        assert_eq!(apic(parsed("run --apic a1,a2 --apic a3", &all)).values, ["a1", "a2", "a3"]);
        assert_eq!(apic(parsed("run", &all)).values, ["b1", "b2"]);
        let oldest = apic(parsed("run", &all[..1]));
        assert_eq!(
            (oldest.values, oldest.origin, oldest.by_flag),
            (vec!["c".to_owned()], "ACI_APIC".to_owned(), false)
        );
        assert!(parsed("run --apic-insecure", &[]).unwrap().is_on("apic-insecure"));
        assert!(
            !parsed("run --apic-insecure=false", &[("ACI_SYNC_APIC_INSECURE", "true")]).unwrap().is_on("apic-insecure")
        );
        assert_eq!(parsed("--version", &[]).unwrap().command, Command::Version);
    }

    /// The README shows this very table.
    #[test]
    fn the_readme_has_the_table() {
        let readme = include_str!("../README.md");
        let table = readme.split("<!-- flags -->\n").nth(1).and_then(|it| it.split("<!-- /flags -->").next());
        assert_eq!(table.unwrap().trim(), markdown().trim());
        for flag in FLAGS {
            assert!(help().contains(&format!("--{}", flag.name)));
        }
    }
}
