//! The floor: the same requests by curl, one process and one connection to each side, the answers to nowhere. Nobody
//! who asks the same questions one after the other can be faster by much.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sim::client::Client;
use sim::lab::Folder;

use crate::world::{World, fabric};

const TRIES: usize = 3;

/// The best of three, in all.
pub fn of(world: &World, folder: &Folder) -> io::Result<Duration> {
    let lists = best(|| lists(world, folder))?;
    let requests = best(|| requests(world, folder))?;
    Ok(lists + requests)
}

fn best(mut measure: impl FnMut() -> io::Result<Duration>) -> io::Result<Duration> {
    let times: Result<Vec<Duration>, io::Error> = (0..TRIES).map(|_| measure()).collect();
    Ok(times?.into_iter().min().unwrap_or_default())
}

/// The pages that the daemon asked for.
fn lists(world: &World, folder: &Folder) -> io::Result<Duration> {
    let file = |name: &str| folder.0.join(name).display().to_string();
    let mut words = String::new();
    for entry in world.lab.kube.journal() {
        if entry.target.contains("limit=") {
            let url = format!("{}{}", world.lab.kube.url(), entry.target);
            words += &format!("url = {}\noutput = /dev/null\n", quoted(&url));
        }
    }
    let (ca, certificate, key) = (file("kube-ca.pem"), file("kube-client.crt"), file("kube-client.key"));
    for (name, value) in [("cacert", ca), ("cert", certificate), ("key", key)] {
        words += &format!("{name} = {}\n", quoted(&value));
    }
    curl(folder, "kube.curl", &words)
}

/// The requests to the APIC, on a fabric of their own that is as empty as the first one was.
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
        let mut block = format!("url = {}\noutput = /dev/null\nrequest = {}\n", quoted(&url), entry.method);
        block += &format!("cacert = {}\n", quoted(&folder.0.join("floor-ca.pem").display().to_string()));
        block += &format!("header = {}\n", quoted(&format!("Cookie: APIC-cookie={token}")));
        if !entry.body.is_empty() {
            block += &format!("data-raw = {}\n", quoted(&entry.body));
        }
        blocks.push(block);
    }
    curl(folder, "apic.curl", &blocks.join("next\n"))
}

fn curl(folder: &Folder, name: &str, words: &str) -> io::Result<Duration> {
    let file = folder.0.join(name);
    fs::write(&file, words)?;
    let mut command = Command::new("curl");
    command.args(["--disable", "--silent", "--show-error", "--http1.1", "--globoff", "--config"]).arg(&file);
    let begun = Instant::now();
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let took = begun.elapsed();
    fs::remove_file(file)?;
    if done.success() { Ok(took) } else { Err(io::Error::other("curl failed")) }
}

/// A value in one of curl's files.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
