//! What people read of the table of commands and flags: help, man page, and the table in `docs/configuration.md`.

use crate::cli::{COMMANDS, FLAGS, Shape, VARIABLES, variable};

const ABOUT: &str = "keeps a Cisco ACI fabric in step with the annotated Deployments of a Kubernetes cluster";

const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "fine"),
    ("1", "failure"),
    ("2", "plan found changes"),
    ("64", "wrong command line"),
    ("78", "a missing or bad value, or with plan and --once credentials that a peer refuses"),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "Stop within two seconds and leave everything on the fabric as it is; a second one ends the process at once.",
    ),
    ("SIGHUP", "Read the APIC password and the Kubernetes credentials again."),
    ("SIGUSR1", "Log the full status."),
    ("SIGUSR2", "Let the deletions go that `--max-deletes` holds."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/aci-sync/aci-sync.env", "The service's settings, a variable a line."),
    ("/etc/aci-sync/apic-password, kubeconfig, apic-ca.pem", "What systemd hands to the service as its credentials."),
];

const DESCRIPTION: &[&str] = &[
    "A Deployment that carries the annotation `aci.haystacknetworks.com/l3o` gets an external EPG (l3extInstP) under an \
     existing tenant and L3Out, and one subnet (l3extSubnet) for each of its Pods' addresses and each load balancer \
     address of its Services. While it lives, the subnets follow the Pods and Services; when it goes, its objects go.",
    "What aci-sync made bears the annotation `orchestrator:aci-sync:{cluster id}` on the fabric, and it is kept: what \
     somebody deletes comes back, and a changed mark, name or scope is put back. What it did not make it never touches. \
     Contracts are people's business.",
    "Each flag may also be given as a variable: `ACI_SYNC_` and its name, such as `ACI_SYNC_CLUSTER_ID`.",
];

/// The help text.
pub fn help() -> String {
    let mut text = format!("aci-sync {ABOUT}.\n\nUsage: aci-sync COMMAND [FLAGS]\n\nCommands:\n");
    for (name, _, help) in COMMANDS.iter().filter(|(.., help)| !help.is_empty()) {
        text += &format!("  {name:<8}  {help}\n");
    }
    text += "\nFlags (each also as a variable: ACI_SYNC_ with its name, such as ACI_SYNC_CLUSTER_ID):\n";
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
    let codes: Vec<String> = EXIT_CODES.iter().map(|(code, what)| format!("{code} {what}")).collect();
    text + &format!("\nExit codes: {}.\n", codes.join("; "))
}

fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// The tables of flags and variables in `docs/configuration.md`.
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
    for (name, _, help) in COMMANDS.iter().filter(|(.., help)| !help.is_empty()) {
        entry(&mut page, &bold(name), &sentence(help));
    }
    section(&mut page, "OPTIONS");
    for flag in FLAGS {
        let name = bold(&format!("--{}", flag.name));
        let left = match flag.shape {
            Shape::Switch => name,
            Shape::One(value) => format!("{name} {}", italic(value)),
            Shape::Many(value) => format!("{name} {},...", italic(value)),
        };
        let told = format!("{} The default is {}. The variable is `{}`.", flag.help, flag.default, variable(flag.name));
        entry(&mut page, &left, &told);
    }
    let tables = [("ENVIRONMENT", VARIABLES), ("SIGNALS", SIGNALS), ("FILES", FILES), ("EXIT STATUS", EXIT_CODES)];
    for (title, table) in tables {
        section(&mut page, title);
        for (name, help) in table {
            entry(&mut page, &bold(name), &sentence(help));
        }
    }
    page + ".SH SEE ALSO\n.BR kubectl (1),\n.BR systemd.service (5),\n.BR journalctl (1)\n"
}

fn section(page: &mut String, title: &str) {
    *page += &format!(".SH {title}\n");
}

fn entry(page: &mut String, left: &str, text: &str) {
    *page += &format!(".TP\n{left}\n{}\n", roff(text));
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

/// Text as roff takes it: what is between backquotes in bold, hyphens as they are typed, and no line that looks like a
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
