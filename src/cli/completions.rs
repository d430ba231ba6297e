//! Completions for shells, made from the table of commands and flags.

use std::collections::BTreeMap;

use super::manual::plain;
use super::table::listed_commands;
use super::{Command, CommandInfo, FLAGS, Flag, Shape};

/// A shell, with what makes its completions.
pub type Shell = (&'static str, fn() -> String);

/// All shells.
pub const SHELLS: [Shell; 3] = [("bash", bash), ("zsh", zsh), ("fish", fish)];

/// What can follow a flag.
enum Value {
    /// One of these words.
    Word(String),
    /// A comma list of these words.
    List(String),
    /// A file.
    File,
    /// Anything.
    Free,
    /// Nothing, or a word after an equals sign.
    Switch,
}

const SWITCH: &str = "true false";

/// The flags that a command takes, each with what follows it.
fn flags(command: Command) -> impl Iterator<Item = (&'static Flag, Value)> {
    let value = move |flag: &Flag| match flag.shape {
        Shape::Switch => Value::Switch,
        Shape::One("FILE") => Value::File,
        _ if flag.values.is_empty() => Value::Free,
        Shape::One(_) => Value::Word(flag.values_with(command).collect::<Vec<_>>().join(" ")),
        Shape::Many(_) => Value::List(flag.values_with(command).collect::<Vec<_>>().join(" ")),
    };
    FLAGS.iter().filter(move |flag| flag.commands.contains(&command)).map(move |flag| (flag, value(flag)))
}

/// The short form of a flag, if it has one.
fn short(flag: &Flag) -> Option<&'static str> {
    (flag.name == "output").then_some("o")
}

/// The words after a command, separated by spaces, if they are known.
fn arguments(command: Command) -> String {
    match command {
        Command::Completions => SHELLS.map(|it| it.0).join(" "),
        Command::Help => listed_commands().map(|it| it.name).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

/// The beginning of a help text, for a line in a menu.
fn summary(help: &str) -> String {
    let ends = ["; ", " (", ". "].iter().filter_map(|it| help.find(it));
    plain(help[..ends.min().unwrap_or(help.len())].trim_end_matches('.'))
}

/// The same for a flag; of one with a closed set the help explains the values, and all of it counts.
fn about(flag: &Flag) -> String {
    if flag.values.is_empty() { summary(flag.help) } else { plain(flag.help.trim_end_matches('.')) }
}

/// Text as one word of a shell.
fn quoted(text: &str, quote: &str) -> String {
    format!("'{}'", text.replace('\'', quote))
}

fn bash() -> String {
    let switches = FLAGS.iter().filter(|it| it.shape == Shape::Switch).map(|it| format!("--{}", it.name));
    // What follows a flag, with the patterns of that flag and its commands; and what follows a command.
    let (mut values, mut cases): (BTreeMap<String, Vec<String>>, String) = Default::default();
    let mut names = Vec::new();
    for &CommandInfo { name, command, .. } in listed_commands() {
        let mut words = vec![arguments(command)];
        for (flag, value) in flags(command) {
            let forms = [Some(format!("--{}", flag.name)), short(flag).map(|it| format!("-{it}"))];
            let sets = match value {
                Value::Word(words) => Some(format!("words='{words}'")),
                Value::List(words) => Some(format!("words='{words}' list=yes")),
                Value::File => Some("files=yes".to_owned()),
                Value::Switch => Some(format!("words='{SWITCH}'")),
                Value::Free => None,
            };
            if let Some(sets) = sets {
                values.entry(sets).or_default().extend(forms.iter().flatten().map(|it| format!("{name}:{it}")));
            }
            words.extend(forms.into_iter().flatten());
        }
        cases += &format!("        {name}:) words='{}' ;;\n", words.join(" ").trim());
        names.push(name);
    }
    for (sets, patterns) in values {
        cases += &format!("        {}) {sets} ;;\n", patterns.join(" | "));
    }
    let switches = switches.collect::<Vec<_>>().join(" | ");
    let names = names.join(" ");
    format!(
        r#"# Completions of aci-sync for bash, printed by `aci-sync completions bash`.
_aci_sync() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} word command= flag= words= list= files= before= at
    # bash splits --flag=value into three words.
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${{COMP_WORDS[at]}}
        case $word in
            =) ;;
            {switches})
                if [ "${{COMP_WORDS[at + 1]}}" = = ]; then flag=$word; else flag=; fi ;;
            -*) flag=$word ;;
            *) if [ -n "$flag" ]; then flag=; else command=${{command:-$word}}; fi ;;
        esac
    done
    if [ "$cur" = = ]; then cur=; fi
    case $command:$flag in
        :) words='{names}' ;;
{cases}    esac
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
    fi
    if [ -n "$list" ] && [[ $cur == *,* ]]; then
        before=${{cur%,*}},
    fi
    mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${{cur#"$before"}}")
}}
complete -F _aci_sync aci-sync
"#
    )
}

fn zsh() -> String {
    let (mut menu, mut cases) = (String::new(), String::new());
    for &CommandInfo { name, command, help, arguments: takes, .. } in listed_commands() {
        menu += &format!("    {}\n", quoted(&format!("{name}:{}", summary(help)), "'\\''"));
        let mut specs = Vec::new();
        for (flag, value) in flags(command) {
            let (several, meta) = match flag.shape {
                Shape::Switch => ("", "value"),
                Shape::One(meta) => ("", meta),
                Shape::Many(meta) => ("*", meta),
            };
            let (equals, action) = match value {
                Value::Word(words) => ("=", format!("({words})")),
                Value::List(words) => ("=", format!(" _values -s , value {words}")),
                Value::File => ("=", "_files".to_owned()),
                Value::Free => ("=", " ".to_owned()),
                Value::Switch => ("=-", format!(":({SWITCH})")),
            };
            let help = about(flag).replace('[', "\\[").replace(']', "\\]");
            let meta = meta.replace(':', "\\:");
            // The value of a switch is optional: two colons before it.
            let (colon, action) = action.strip_prefix(':').map_or((":", &*action), |action| ("::", action));
            let forms = [Some(format!("--{}{equals}", flag.name)), short(flag).map(|it| format!("-{it}"))];
            let spec = |form: &String| quoted(&format!("{several}{form}[{help}]{colon}{meta}:{action}"), "'\\''");
            specs.extend(forms.iter().flatten().map(spec));
        }
        match arguments(command) {
            words if !words.is_empty() => specs.push(format!("'1:argument:({words})'")),
            _ if !takes.is_empty() => specs.push("'*:argument: '".to_owned()),
            _ if specs.is_empty() => continue,
            _ => {}
        }
        cases += &format!("    {name})\n      _arguments \\\n        {}\n      ;;\n", specs.join(" \\\n        "));
    }
    format!(
        r#"#compdef aci-sync
# Completions of aci-sync for zsh, printed by `aci-sync completions zsh`.
_aci-sync() {{
  local -a commands=(
{menu}  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{cases}  esac
}}
if [ "$funcstack[1]" = _aci-sync ]; then
  _aci-sync "$@"
else
  compdef _aci-sync aci-sync
fi
"#
    )
}

fn fish() -> String {
    let mut page = "# Completions of aci-sync for fish, printed by `aci-sync completions fish`.\n\
                    complete -c aci-sync -f\n"
        .to_owned();
    for &CommandInfo { name, command, help, .. } in listed_commands() {
        let described = |text: &str| quoted(text, "\\'");
        page += &format!("complete -c aci-sync -n __fish_use_subcommand -a {name} -d {}\n", described(&summary(help)));
        let line = format!("complete -c aci-sync -n '__fish_seen_subcommand_from {name}'");
        let words = arguments(command);
        if !words.is_empty() {
            page += &format!("{line} -a '{words}'\n");
        }
        for (flag, value) in flags(command) {
            let short = short(flag).map(|it| format!(" -s {it}")).unwrap_or_default();
            let takes = match value {
                Value::Word(words) => format!(" -x -a '{words}'"),
                Value::List(words) => format!(" -x -a '(__fish_append , {words})'"),
                Value::File => " -r -F".to_owned(),
                Value::Free => " -x".to_owned(),
                Value::Switch => String::new(),
            };
            page += &format!("{line}{short} -l {}{takes} -d {}\n", flag.name, described(&about(flag)));
        }
    }
    page
}
