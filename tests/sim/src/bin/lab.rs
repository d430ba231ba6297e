//! The lab: a simulated APIC and a simulated Kubernetes API server as one program, for the demo, the benchmark and
//! everybody who wants to play. It writes what one needs to talk to them into a folder and runs until SIGTERM.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use sim::apic::{self, SimApic};
use sim::kube::{self, Credential, SimKube};
use sim::pki::KeyForm;

const HELP: &str = "\
lab: a simulated APIC and a simulated Kubernetes API server

Usage: lab --dir DIR [--controllers N] [--apic-port PORT] [--kube-port PORT]

It writes into DIR: lab.env (shell variables with the addresses), kubeconfig, kube-ca.pem, kube-client.pem,
kube-client.key, apic-ca.pem and apic-password; lab.env last, so that who waits for it finds the rest.
";

struct Arguments {
    folder: PathBuf,
    controllers: usize,
    apic_port: u16,
    kube_port: u16,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut parsed = Arguments { folder: PathBuf::new(), controllers: 1, apic_port: 0, kube_port: 0 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        use lexopt::ValueExt;
        match argument {
            lexopt::Arg::Long("dir") => parsed.folder = parser.value()?.into(),
            lexopt::Arg::Long("controllers") => parsed.controllers = parser.value()?.parse()?,
            lexopt::Arg::Long("apic-port") => parsed.apic_port = parser.value()?.parse()?,
            lexopt::Arg::Long("kube-port") => parsed.kube_port = parser.value()?.parse()?,
            lexopt::Arg::Long("help") => {
                print!("{HELP}");
                std::process::exit(0);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if parsed.folder.as_os_str().is_empty() {
        return Err("where to? give --dir DIR".into());
    }
    Ok(parsed)
}

fn main() {
    if let Err(error) = run() {
        eprintln!("lab: {error}");
        std::process::exit(64);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let (sender, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        // A second signal finds nobody who listens.
        let _ = sender.send(());
    })?;
    let apic = SimApic::start(apic::Options {
        controllers: arguments.controllers,
        port: arguments.apic_port,
        lab: true,
        ..apic::Options::default()
    });
    let kube = SimKube::start(kube::Options {
        address: ([127, 0, 0, 1], arguments.kube_port).into(),
        controllers: true,
        ..kube::Options::default()
    });
    std::fs::create_dir_all(&arguments.folder)?;
    write(&arguments.folder, &apic, &kube)?;
    // Without a sender left there is no signal to come either.
    let _ = stopped.recv();
    Ok(())
}

fn write(folder: &Path, apic: &SimApic, kube: &SimKube) -> std::io::Result<()> {
    let form = KeyForm::Sec1;
    let client = kube.client("kubernetes-admin", form);
    let secret = |name: &str, text: &str| {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(name))?.write_all(text.as_bytes())
    };
    secret("kubeconfig", &kube.kubeconfig(Credential::Certificate(form)))?;
    secret("kube-client.key", &client.key_pem(form))?;
    secret("apic-password", apic.password())?;
    std::fs::write(folder.join("kube-client.pem"), client.certificate_pem())?;
    std::fs::write(folder.join("kube-ca.pem"), kube.ca_pem())?;
    std::fs::write(folder.join("apic-ca.pem"), apic.ca_pem())?;
    let env = format!(
        "ACI_APIC={}\nACI_USERNAME={}\nAPIC_URL=https://{}\nKUBE_URL={}\n",
        apic.apic(),
        apic.username(),
        apic.controllers()[0],
        kube.url()
    );
    std::fs::write(folder.join("lab.env.new"), env)?;
    std::fs::rename(folder.join("lab.env.new"), folder.join("lab.env"))
}
