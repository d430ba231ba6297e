//! The lab: SimApic and SimKube as one process, and the words to act on a running one.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;

use lexopt::prelude::*;
use sim::client::Answer;
use sim::lab::{Folder, Lab};

const HELP: &str = "\
A Cisco ACI fabric and a Kubernetes API server to play with, over real TLS on this machine.

  lab --dir DIR [--controllers N] [--apic-port PORT] [--kube-port PORT]
      runs until SIGTERM or Ctrl-C; DIR gets all that is needed to talk to it, lab.env last
  lab --dir DIR apic METHOD PATH [BODY]    a request as the administrator of the fabric
  lab --dir DIR kube METHOD PATH [BODY]    a request as the administrator of the cluster
      prints the answer's body; exit code 1 unless it is a 2xx; the body - is read from stdin
  lab --dir DIR fabric [DN]                the external EPGs and subnets below a DN (uni) as a table
";

#[derive(Default)]
struct Words {
    dir: Option<PathBuf>,
    controllers: Option<usize>,
    apic_port: u16,
    kube_port: u16,
    rest: Vec<String>,
}

fn main() -> ExitCode {
    let words = match parse() {
        Ok(words) => words,
        Err(error) => {
            eprintln!("lab: {error}\n\n{HELP}");
            return ExitCode::from(64);
        }
    };
    match run(words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Words, lexopt::Error> {
    let mut words = Words::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(word) = parser.next()? {
        match word {
            Long("dir") => words.dir = Some(parser.value()?.into()),
            Long("controllers") => words.controllers = Some(parser.value()?.parse()?),
            Long("apic-port") => words.apic_port = parser.value()?.parse()?,
            Long("kube-port") => words.kube_port = parser.value()?.parse()?,
            Long("help") | Short('h') => {
                print!("{HELP}");
                std::process::exit(0);
            }
            Value(value) => words.rest.push(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(words)
}

/// False where a request was answered with something else than a 2xx.
fn run(words: Words) -> io::Result<bool> {
    let folder = Folder(words.dir.ok_or_else(|| io::Error::other("--dir is missing"))?);
    let rest: Vec<&str> = words.rest.iter().map(String::as_str).collect();
    match rest[..] {
        [] => serve(&folder, words.controllers.unwrap_or(1), words.apic_port, words.kube_port),
        ["fabric"] => show(&folder.fabric("uni")?),
        ["fabric", dn] => show(&folder.fabric(dn)?),
        [side @ ("apic" | "kube"), method, path] => ask(&folder, side, method, path, ""),
        [side @ ("apic" | "kube"), method, path, "-"] => {
            let mut body = String::new();
            io::stdin().read_to_string(&mut body)?;
            ask(&folder, side, method, path, &body)
        }
        [side @ ("apic" | "kube"), method, path, body] => ask(&folder, side, method, path, body),
        _ => Err(io::Error::other("these words make no sense; see lab --help")),
    }
}

fn serve(folder: &Folder, controllers: usize, apic_port: u16, kube_port: u16) -> io::Result<bool> {
    let (end, ended) = channel();
    ctrlc::set_handler(move || {
        let _ = end.send(());
    })
    .map_err(io::Error::other)?;
    let lab = Lab::start(controllers.max(1), apic_port, kube_port);
    lab.describe(folder)?;
    show(&lab.how_to(folder))?;
    let _ = ended.recv();
    Ok(true)
}

fn ask(folder: &Folder, side: &str, method: &str, path: &str, body: &str) -> io::Result<bool> {
    let Answer { status, body, .. } = match side {
        "apic" => folder.apic(method, path, body)?,
        _ => folder.kube(method, path, body)?,
    };
    show(body.trim_end())?;
    show("\n")?;
    Ok((200..300).contains(&status))
}

fn show(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(true)
}
