//! Whether the OpenSSL that this program was built with can be trusted.
//!
//! Where a static build goes wrong, OpenSSL comes without threads, silently, and a process of several threads destroys
//! its heap. `scripts/build-static` builds it right; this is what notices where it was built otherwise.

use std::thread;

use crate::net::{Tls, TlsSettings};

/// What OpenSSL does with threads is proven by so many of them.
const THREADS: usize = 8;

/// Each sets up TLS so many times, with all the root certificates of the system.
const TIMES: usize = 10;

/// Why this program must not run. OpenSSL's safe interface does not tell of threads, but Configure leaves out both or
/// none of threads and position-independent code. What a distribution has built is no concern of ours.
pub fn flaw() -> Option<&'static str> {
    let has_threads = openssl::version::c_flags().contains("OPENSSL_PIC");
    let flaw = "this program was built with an OpenSSL that has no threads, and would destroy its own memory: build it \
                with scripts/build-static";
    (cfg!(target_feature = "crt-static") && !has_threads).then_some(flaw)
}

/// Looks for the flaw, and uses OpenSSL from several threads at once; a build with the flaw does not survive that.
pub fn run() -> Result<String, String> {
    if let Some(flaw) = flaw() {
        return Err(flaw.to_owned());
    }
    let set_up = || (0..TIMES).try_for_each(|_| Tls::new(&TlsSettings::default())?.prepare());
    let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(set_up)).collect();
    for thread in threads {
        let done = thread.join().map_err(|_| "a thread panicked".to_owned())?;
        done.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    }
    Ok(format!("{}: {THREADS} threads set up TLS {TIMES} times each", openssl::version::version()))
}
