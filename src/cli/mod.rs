//! The parser of the command line and the environment. What they may say is in `table`; the texts that are made from the
//! table are in `manual` (help, man page, `docs/configuration.md`) and `completions`; values are checked in `config`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::exit::ExitError;

pub use table::{COMMANDS, Command, CommandInfo, FLAGS, Flag, Shape, VARIABLES};
use table::{in_words, listed_commands};

pub mod completions;
pub mod manual;
mod table;

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
            lexopt::Arg::Value(word) if command.is_some_and(|it| !it.arguments.is_empty()) => {
                subjects.push(text(word)?)
            }
            lexopt::Arg::Value(word) => return Err(usage(format!("unexpected argument {:?}", text(word)?))),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                let arguments = command.map(|it| it.name.to_owned()).into_iter().collect();
                return Ok(Invocation { arguments, ..Invocation::of(Command::Help) });
            }
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
    let is_misplaced = |flag: &&Flag| values.contains_key(flag.name) && !flag.commands.contains(&command.command);
    if let Some(flag) = FLAGS.iter().find(is_misplaced) {
        return Err(usage(format!("--{} is valid with {} only", flag.name, flag.command_names())));
    }
    let mut invocation = Invocation { arguments: subjects, values, ..Invocation::of(command.command) };
    if FLAGS.iter().any(|flag| flag.commands.contains(&command.command)) {
        invocation.add_variables(environment, &|_| String::new())?;
    }
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
    format!("the commands are {}", in_words(&listed_commands().map(|it| it.name).collect::<Vec<_>>()))
}

/// The command with this name.
pub(crate) fn command_of(word: &str) -> Result<&'static CommandInfo, ExitError> {
    let found = COMMANDS.iter().find(|it| it.name == word);
    found.ok_or_else(|| ExitError::usage(format!("unknown command {word:?}; {}", known_commands())))
}
