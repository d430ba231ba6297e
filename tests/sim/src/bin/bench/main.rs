//! The benchmark: the daemon as it is shipped, measured from outside, against the simulators in this process.

mod daemon;
mod floor;
mod growth;
mod hostile;
mod measure;
mod parallel;
mod throttle;
mod world;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

const HELP: &str = "\
bench --daemon PROGRAM --dir DIR [--pods N]...    measures PROGRAM; DIR is for its files
  --pods N      only this size, perhaps several; else 1000, 10000 and 50000
  --hostile     only this: time against size of what one namespace can do to the others
  --only WHAT   only one of: sync, growth, latency, healing, idle, parallel, throttle;
                with --hostile: labels, services, deletions, keys, l3outs
";

fn main() -> ExitCode {
    match parse().and_then(|plan| plan.run().map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Plan {
    bench: measure::Bench,
    sizes: Vec<usize>,
    hostile: bool,
    only: Option<String>,
}

fn parse() -> Result<Plan, String> {
    let mut parser = lexopt::Parser::from_env();
    let (mut daemon, mut dir, mut sizes, mut hostile, mut only) = (None, None, Vec::new(), false, None);
    let mut read = || -> Result<(), lexopt::Error> {
        while let Some(word) = parser.next()? {
            match word {
                Long("daemon") => daemon = Some(PathBuf::from(parser.value()?)),
                Long("dir") => dir = Some(PathBuf::from(parser.value()?)),
                Long("pods") => sizes.push(parser.value()?.parse()?),
                Long("hostile") => hostile = true,
                Long("only") => only = Some(parser.value()?.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    };
    read().map_err(|error| format!("{error}\n\n{HELP}"))?;
    let missing = || HELP.to_owned();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 50_000];
    }
    let bench = measure::Bench { program: daemon.ok_or_else(missing)?, dir: dir.ok_or_else(missing)? };
    Ok(Plan { bench, sizes, hostile, only })
}

impl Plan {
    fn run(&self) -> io::Result<()> {
        if self.hostile {
            return hostile::table(&self.bench.program, &self.bench.dir, self.only.as_deref());
        }
        let is_desired = |what: &str| self.only.as_deref().is_none_or(|it| it == what);
        if is_desired("sync") {
            self.bench.sync(&self.sizes)?;
        }
        if is_desired("growth") {
            growth::table(&self.bench)?;
        }
        if is_desired("latency") {
            self.bench.latency()?;
        }
        if is_desired("healing") {
            self.bench.healing()?;
        }
        if is_desired("idle") {
            self.bench.idle()?;
        }
        if is_desired("parallel") {
            parallel::table(&self.bench.program, &self.bench.dir)?;
        }
        if is_desired("throttle") {
            throttle::table(&self.bench.program, &self.bench.dir)?;
        }
        Ok(())
    }
}
