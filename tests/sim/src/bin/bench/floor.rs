//! The floor: the same requests by curl, as many of them together as the daemon sends, the answers to nowhere. No program
//! that asks the same questions can be faster by much.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sim::client::Client;
use sim::lab::Folder;

use crate::world::{World, fabric};

/// Of so many tries the best one counts, for the floor as for the daemon.
pub const TRIES: usize = 3;

/// The daemon's `--parallel` by default.
const PARALLEL: usize = 4;

/// The time for the requests of a daemon that was started at this time.
pub fn of(world: &World, folder: &Folder, begun: Instant) -> io::Result<Duration> {
    let lists = best(|| lists(world, folder, begun))?;
    let requests = best(|| requests(world, folder))?;
    Ok(lists + requests)
}

fn best(mut measure: impl FnMut() -> io::Result<Duration>) -> io::Result<Duration> {
    let times: Result<Vec<Duration>, io::Error> = (0..TRIES).map(|_| measure()).collect();
    Ok(times?.into_iter().min().unwrap_or_default())
}

/// The pages that the daemon asked for. The lists are read together, each by a process of its own, its pages one after the
/// other: a page names the next one.
fn lists(world: &World, folder: &Folder, begun: Instant) -> io::Result<Duration> {
    let file = |name: &str| folder.0.join(name).display().to_string();
    let mut lists: BTreeMap<String, String> = BTreeMap::new();
    for entry in world.lab.kube.journal() {
        if entry.at >= begun && entry.target.contains("limit=") {
            let url = format!("{}{}", world.lab.kube.url(), entry.target);
            let path = entry.target.split('?').next().unwrap_or_default().to_owned();
            *lists.entry(path).or_default() += &format!("url = {}\noutput = /dev/null\n", quoted(&url));
        }
    }
    let (ca, certificate, key) = (file("kube-ca.pem"), file("kube-client.crt"), file("kube-client.key"));
    for words in lists.values_mut() {
        for (name, value) in [("cacert", &ca), ("cert", &certificate), ("key", &key)] {
            *words += &format!("{name} = {}\n", quoted(value));
        }
    }
    curl(folder, lists.values(), &[])
}

/// The requests to the APIC, by one process with several connections, on a fabric of their own that is as empty as the first
/// one was.
fn requests(world: &World, folder: &Folder) -> io::Result<Duration> {
    let apic = fabric();
    let address = apic.controllers()[0];
    fs::write(folder.0.join("floor-ca.pem"), apic.ca_pem())?;
    let user = json!({"aaaUser": {"attributes": {"name": apic.username(), "pwd": apic.password()}}}).to_string();
    let client = Client::new(&address.to_string(), apic.ca_pem().as_bytes(), None)?;
    let welcome: Value = serde_json::from_str(&client.send("POST", "/api/aaaLogin.json", &[], &user)?.body)?;
    let token = welcome["imdata"][0]["aaaLogin"]["attributes"]["token"].as_str().unwrap_or_default();
    let mut blocks = Vec::new();
    for entry in world.lab.apic.journal() {
        if entry.path.contains("aaaLogin") || entry.path.contains("aaaLogout") || entry.path.starts_with("/socket") {
            continue;
        }
        let url = format!("https://{address}{}", entry.target);
        // What follows `next` begins without options.
        let mut block = format!(
            "silent\nshow-error\nhttp1.1\nurl = {}\noutput = /dev/null\nrequest = {}\n",
            quoted(&url),
            entry.method
        );
        block += &format!("cacert = {}\n", quoted(&folder.0.join("floor-ca.pem").display().to_string()));
        block += &format!("header = {}\n", quoted(&format!("Cookie: APIC-cookie={token}")));
        if !entry.body.is_empty() {
            block += &format!("data-raw = {}\n", quoted(&entry.body));
        }
        blocks.push(block);
    }
    let options = ["--parallel", "--parallel-immediate", "--parallel-max", &PARALLEL.to_string()];
    curl(folder, [&blocks.join("next\n")], &options)
}

/// Runs these files of curl together.
fn curl<'a>(folder: &Folder, files: impl IntoIterator<Item = &'a String>, options: &[&str]) -> io::Result<Duration> {
    let mut commands = Vec::new();
    for (number, words) in files.into_iter().enumerate() {
        let file = folder.0.join(format!("floor-{number}.curl"));
        fs::write(&file, words)?;
        let mut command = Command::new("curl");
        command
            .args(["--disable", "--silent", "--no-progress-meter", "--show-error", "--http1.1", "--globoff"])
            .args(options);
        command.arg("--config").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        commands.push(command);
    }
    let begun = Instant::now();
    let children: io::Result<Vec<Child>> = commands.iter_mut().map(Command::spawn).collect();
    for mut child in children? {
        if !child.wait()?.success() {
            return Err(io::Error::other("curl failed"));
        }
    }
    Ok(begun.elapsed())
}

/// A value in one of curl's files.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
