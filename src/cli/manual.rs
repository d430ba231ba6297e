//! The texts made from the table of commands and flags: help, man page, and the tables in `docs/configuration.md`.

use super::table::{CommandInfo, FLAGS, Flag, Shape, VARIABLES, WITH_SETTINGS, listed_commands};
use super::{Command, variable};

const ABOUT: &str = "keeps a Cisco ACI fabric in sync with the annotated workloads of a Kubernetes cluster";

/// The value of the annotation in the example.
pub const EXAMPLE_BINDING: &str = r#"{"tenant":"TEN_K8_C1","l3out":"L3O_K8_C1","epg":"EPG_K8_APP_MCAST"}"#;

const EXAMPLE_NOTES: [&str; 2] = [
    "The tenant and the L3Out exist; aci-sync creates the external EPG and its subnets.",
    "`\"expose\":[\"services\"]` in the JSON exposes the addresses of the LoadBalancer Services only.",
];

const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "success"),
    ("1", "failure"),
    ("2, 3", "what the command says of them"),
    ("64", "invalid command line"),
    (
        "78",
        "a missing or invalid value elsewhere; with plan, purge and --once also credentials or rights that a peer refuses; with check also wrong flag values",
    ),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "Shut down within two seconds; fabric objects stay in place. A second signal ends the process at once.",
    ),
    ("SIGHUP", "Read the APIC password or private key and the Kubernetes credentials again."),
    ("SIGUSR1", "Log the full status."),
    ("SIGUSR2", "Approve the deletions and moves that the deletion guard (`--max-deletes`) blocks."),
];

const FILES: &[(&str, &str)] = &[
    (
        "/etc/aci-sync/aci-sync.env",
        "The settings of the systemd service, one variable a line. As root `plan`, `explain`, `check`, `status` and `purge` take them, too.",
    ),
    (
        "/etc/aci-sync/apic-password, apic-private-key.pem, kubeconfig, apic-ca.pem",
        "The secrets of the systemd service, which gets them as systemd credentials. Restart it after a change.",
    ),
];

const DESCRIPTION: &[&str] = &[
    "A Deployment with the annotation `aci.haystacknetworks.com/l3o`, or with `--workloads` a StatefulSet or DaemonSet, \
     gets an external EPG (l3extInstP) below an existing tenant and L3Out, with one subnet (l3extSubnet) for each address of its Pods and of its LoadBalancer Services. \
     aci-sync keeps these subnets up to date while the workload exists, and deletes what it created after the \
     workload is gone.",
    "What aci-sync creates carries the owner annotation `orchestrator:aci-sync:{cluster id}`. If another writer deletes \
     or changes an owned object (drift), aci-sync restores it, its name, its owner annotation and its scope flags. It \
     never changes or deletes an object that it does not own, and writes no contracts; with `--restore-contracts` it puts \
     contract relations back.",
    "The annotation `aci.haystacknetworks.com/pause` with the value `true` pauses a workload: aci-sync adds, removes \
     and repairs nothing for it.",
    "Each flag but `--yes` and `--legacy` is also a variable: `ACI_SYNC_` and the flag's name in capitals, such as \
     `ACI_SYNC_CLUSTER_ID` for `--cluster-id`.",
];

/// The lines of a command that annotates a Deployment.
fn example_command() -> [String; 2] {
    [
        "kubectl -n multicast annotate deployment mcast \\".to_owned(),
        format!("  aci.haystacknetworks.com/l3o='{EXAMPLE_BINDING}'"),
    ]
}

/// The same in the Deployment's manifest.
fn example_manifest() -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: mcast\n  namespace: multicast\n  annotations:\n    \
         aci.haystacknetworks.com/l3o: '{EXAMPLE_BINDING}'"
    )
}

/// The help text.
pub fn help() -> String {
    let mut text = format!("aci-sync {ABOUT}.\n\nUsage: aci-sync COMMAND [FLAGS]\n\nCommands:\n");
    for it in listed_commands() {
        text += &format!("  {}\n{}", synopsis(it), wrapped(&sentence(&with_exit_codes(it)), 6));
    }
    text += "\nExample: an external EPG for a Deployment\n";
    for line in example_command() {
        text += &format!("  {line}\n");
    }
    for note in EXAMPLE_NOTES {
        text += &wrapped(&plain(note), 2);
    }
    text += "\nFlags (each but --yes and --legacy is also a variable, as ACI_SYNC_LISTEN):\n";
    text.extend(FLAGS.iter().map(help_of_flag));
    text += "\nVariables:\n";
    for (name, help) in VARIABLES {
        text += &format!("  {name}\n{}", wrapped(&plain(help), 6));
    }
    text += "\nExit codes:\n";
    for (code, what) in EXIT_CODES {
        text += &wrapped(&format!("{code}: {what}"), 2);
    }
    text + "\naci-sync help COMMAND prints the help of one command.\n"
}

/// The help text of one command.
pub fn help_of(it: &CommandInfo) -> String {
    let has_settings = it.command != Command::Run && WITH_SETTINGS.contains(&it.command);
    let takes = |flag: &&Flag| flag.commands.contains(&it.command);
    let is_setting = |flag: &&Flag| has_settings && flag.commands.contains(&Command::Run);
    let flags: String = FLAGS.iter().filter(|it| takes(it) && !is_setting(it)).map(help_of_flag).collect();
    let usage = format!("{}{}", synopsis(it), if flags.is_empty() { "" } else { " [FLAGS]" });
    let mut text = format!("Usage: aci-sync {usage}\n");
    if !it.help.is_empty() {
        text += &format!("\n{}", wrapped(&sentence(&with_exit_codes(it)), 0));
    }
    if !flags.is_empty() {
        text += &format!("\nFlags:\n{flags}");
    }
    if has_settings {
        text += "\nThe settings of run count as well, as flags or variables: aci-sync help run\n";
    }
    text
}

fn help_of_flag(flag: &Flag) -> String {
    format!("  {}\n{}", flag.form(), wrapped(&format!("{} [{}]", plain(flag.help), plain(flag.default)), 6))
}

/// A command with its arguments.
fn synopsis(it: &CommandInfo) -> String {
    format!("{} {}", it.name, it.arguments).trim_end().to_owned()
}

fn with_exit_codes(it: &CommandInfo) -> String {
    match it.exit_codes {
        "" => it.help.to_owned(),
        codes => format!("{} (exit code {codes})", it.help),
    }
}

/// Text in lines of at most 80 characters, indented by so many spaces.
fn wrapped(text: &str, indent: usize) -> String {
    let (mut lines, mut length) = (String::new(), 80);
    for word in text.split(' ') {
        if length + 1 + word.chars().count() > 80 {
            lines += if lines.is_empty() { "" } else { "\n" };
            lines += &" ".repeat(indent);
            length = indent;
        } else {
            lines.push(' ');
            length += 1;
        }
        lines += word;
        length += word.chars().count();
    }
    lines + "\n"
}

/// Text without the marks of code.
pub(super) fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// The tables of flags and variables in `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = "| flag | default | what |\n| --- | --- | --- |\n".to_owned();
    for flag in FLAGS {
        text += &format!("| `{}` | {} | {} |\n", flag.form(), flag.default, flag.help);
    }
    text += "\n| variable | what |\n| --- | --- |\n";
    for (name, help) in VARIABLES {
        text += &format!("| `{name}` | {help} |\n");
    }
    text
}

/// The man page aci-sync(8), for man(7).
pub fn man() -> String {
    let mut page = format!(
        ".TH ACI-SYNC 8 \"\" \"aci-sync {}\" \"System Administration\"\n.SH NAME\naci-sync \\- {}\n",
        env!("CARGO_PKG_VERSION"),
        roff(ABOUT)
    );
    page += ".SH SYNOPSIS\n.B aci-sync\n.I COMMAND\n.RI [ FLAGS ]\n.SH DESCRIPTION\n";
    for (n, paragraph) in DESCRIPTION.iter().enumerate() {
        page += &format!("{}{}\n", if n == 0 { "" } else { ".PP\n" }, roff(paragraph));
    }
    section(&mut page, "COMMANDS");
    for it in listed_commands() {
        let arguments = if it.arguments.is_empty() { String::new() } else { format!(" {}", italic(it.arguments)) };
        entry(&mut page, &format!("{}{arguments}", bold(it.name)), &sentence(&with_exit_codes(it)));
    }
    section(&mut page, "OPTIONS");
    for flag in FLAGS {
        let name = bold(&format!("--{}", flag.name));
        let left = match flag.shape {
            Shape::Switch => name,
            Shape::One(value) => format!("{name} {}", italic(value)),
            Shape::Many(value) => format!("{name} {},...", italic(value)),
        };
        let variable = match flag.has_variable {
            true => format!("The variable is `{}`.", variable(flag.name)),
            false => "It has no variable.".to_owned(),
        };
        let text = format!("{} The default is {}. {variable}", flag.help, flag.default);
        entry(&mut page, &left, &text);
    }
    let tables = [("ENVIRONMENT", VARIABLES), ("SIGNALS", SIGNALS), ("FILES", FILES), ("EXIT STATUS", EXIT_CODES)];
    for (title, table) in tables {
        section(&mut page, title);
        for (name, help) in table {
            entry(&mut page, &bold(name), &sentence(help));
        }
    }
    section(&mut page, "EXAMPLES");
    page += &format!("Give a Deployment an external EPG:\n{}", literal(&example_command().join("\n")));
    page += &format!(".PP\nOr in its manifest:\n{}", literal(&example_manifest()));
    page += &format!(".PP\n{}\n", roff(&EXAMPLE_NOTES.join(" ")));
    page + ".SH SEE ALSO\n.BR kubectl (1),\n.BR systemd.service (5),\n.BR journalctl (1)\n"
}

fn section(page: &mut String, title: &str) {
    *page += &format!(".SH {title}\n");
}

fn entry(page: &mut String, left: &str, text: &str) {
    *page += &format!(".TP\n{left}\n{}\n", roff(text));
}

/// Lines that are printed as they are.
fn literal(text: &str) -> String {
    let lines: String = text.lines().map(|it| roff(it) + "\n").collect();
    format!(".PP\n.nf\n{lines}.fi\n")
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}{}", characters.as_str(), if text.ends_with('.') { "" } else { "." })
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", roff(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", roff(text))
}

/// Escapes text for roff: what is between backquotes becomes bold, hyphens stay hyphens, and no line begins with a
/// request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    let mut page = String::new();
    for (n, part) in text.split('`').enumerate() {
        page += match n {
            0 => "",
            n if n % 2 == 1 => "\\fB",
            _ => "\\fR",
        };
        page += part;
    }
    if page.starts_with('.') { format!("\\&{page}") } else { page }
}
