//! The one table of commands, flags and variables: all that the command line and the environment may say. What is made
//! from it: the parser, `manual` and `completions`.

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

/// What the command line says of a command.
#[derive(Debug, Clone, Copy)]
pub struct CommandInfo {
    /// The word.
    pub name: &'static str,
    /// What it stands for.
    pub command: Command,
    /// What may follow it, as the help shows it; empty: nothing.
    pub arguments: &'static str,
    /// What it does, in one clause. A command without help is for scripts and is not listed.
    pub help: &'static str,
    /// Its exit codes, where they say more than success and failure.
    pub exit_codes: &'static str,
}

const fn command(name: &'static str, command: Command, arguments: &'static str, help: &'static str) -> CommandInfo {
    CommandInfo { name, command, arguments, help, exit_codes: "" }
}

/// All commands, in the order of the help.
pub const COMMANDS: &[CommandInfo] = &[
    command("run", Command::Run, "", "keep the fabric in sync with the cluster until SIGTERM"),
    CommandInfo {
        exit_codes: "0: no changes, 2: changes, 3: none, but something desired is missing",
        ..command("plan", Command::Plan, "", "print what a run would change and why, without writing")
    },
    CommandInfo {
        exit_codes: "0: as it should be, 2: not, 1: unknown",
        ..command(
            "explain",
            Command::Explain,
            "SUBJECT",
            "print why SUBJECT is in the fabric or why not, without writing; SUBJECT is NAMESPACE/NAME, KIND/NAMESPACE/NAME, an address or a DN",
        )
    },
    CommandInfo {
        exit_codes: "0: nothing failed, 1: a check failed, 78: the settings are wrong",
        ..command(
            "check",
            Command::Check,
            "[TENANT/L3OUT ...]",
            "check settings, rights, cluster and fabric, without writing; TENANT/L3OUT ... adds L3Outs",
        )
    },
    CommandInfo {
        exit_codes: "0: in sync or standby, 2: neither, 1: no daemon answers",
        ..command("status", Command::Status, "", "print the state of the running daemon")
    },
    CommandInfo {
        exit_codes: "0: nothing left, 1: something is left, or refused, 2: planned only",
        ..command(
            "purge",
            Command::Purge,
            "[TENANT/L3OUT ...]",
            "delete the EPGs and subnets that carry the owner annotation of this cluster, and its tags, after a plan and your consent; TENANT/L3OUT ... narrows it",
        )
    },
    command("version", Command::Version, "", "print version, commit, target, compiler and OpenSSL"),
    command("help", Command::Help, "[COMMAND]", "print the help, or that of a command"),
    command("man", Command::Man, "", "print the man page"),
    command("completions", Command::Completions, "SHELL", "print completions for a shell: bash, zsh or fish"),
    command("self-test", Command::SelfTest, "", ""),
];

/// The commands that people type.
pub(super) fn listed_commands() -> impl Iterator<Item = &'static CommandInfo> {
    COMMANDS.iter().filter(|it| !it.help.is_empty())
}

/// Words as a sentence has them: `a, b and c`.
pub(super) fn in_words(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => words.concat(),
    }
}

/// The commands that take the settings of a run.
pub(super) const WITH_SETTINGS: &[Command] =
    &[Command::Run, Command::Plan, Command::Explain, Command::Check, Command::Purge];

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
    /// The commands that take it.
    pub commands: &'static [Command],
}

impl Flag {
    const fn values(self, values: &'static [&'static str]) -> Flag {
        Flag { values, ..self }
    }

    /// The same, for other commands than those with the settings of a run.
    const fn only(self, commands: &'static [Command]) -> Flag {
        Flag { commands, ..self }
    }

    /// The commands that take it, as a sentence has them.
    pub(super) fn command_names(&self) -> String {
        let taking = listed_commands().filter(|it| self.commands.contains(&it.command));
        in_words(&taking.map(|it| it.name).collect::<Vec<_>>())
    }

    /// What is typed, with the name of its value.
    pub fn form(&self) -> String {
        match self.shape {
            Shape::Switch => format!("--{}", self.name),
            Shape::One(value) => format!("--{} {value}", self.name),
            Shape::Many(value) => format!("--{} {value},...", self.name),
        }
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
    Flag { name, shape, older: None, has_variable: true, default, help, values: &[], commands: WITH_SETTINGS }
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
    ).only(&[Command::Run, Command::Plan, Command::Explain, Command::Check, Command::Status, Command::Purge]),
    flag(
        "output",
        Shape::One("FORMAT"),
        "`text`",
        "With `check`, `explain`, `plan`, `purge` and `status`, also as `-o`: `text` or `json` (with `purge` the undo file); with `plan` also `apic` (the requests of a run, and their undo), with `status` also `prometheus` (the metrics).",
    ).values(&["text", "json", "apic", "prometheus"])
    .only(&[Command::Plan, Command::Explain, Command::Check, Command::Status, Command::Purge]),
    flag(
        "discover",
        Shape::Switch,
        "false",
        "With `check`: find the L3Outs that the nodes are behind, instead of all checks; exit code 0 if it is one, 2 if not.",
    ).only(&[Command::Check]),
    flag("wait", Shape::One("DURATION"), "`0`", "With `explain`: how long to wait until the subject is in sync.")
        .only(&[Command::Explain]),
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
    ).only(&[Command::Run]),
    Flag {
        has_variable: false,
        ..flag("yes", Shape::Switch, "false", "With `purge`: the consent to the plan, without a question.")
            .only(&[Command::Purge])
    },
    Flag {
        has_variable: false,
        ..flag(
            "legacy",
            Shape::Switch,
            "false",
            "With `purge TENANT/L3OUT ...`: also what carries the mark `orchestrator:aci-k8-haystack` or the owner annotation of an `--adopt-id`.",
        )
        .only(&[Command::Purge])
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
