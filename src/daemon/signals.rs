//! The signals that concern the daemon, on a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::exit::ExitError;

/// A second SIGTERM or SIGINT within this time is taken for the same request to stop: some programs send two (X2).
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// Starts to listen. A SIGTERM or SIGINT that comes [`SAME_REQUEST`] after the first, or later, ends the process at once.
pub fn listen() -> Result<Receiver<i32>, ExitError> {
    let failed = |error: std::io::Error| ExitError::failed(format!("failed to listen for signals: {error}"));
    let ends_at_once = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, ends_at_once.clone()).map_err(failed)?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]).map_err(failed)?;
    let (sender, receiver) = bounded(8);
    // It blocks in the kernel for the whole life of the process and holds nothing: no thread waits for its end.
    let forward = move || {
        let mut is_first = true;
        for signal in signals.forever() {
            if matches!(signal, SIGTERM | SIGINT) && std::mem::take(&mut is_first) {
                arm_second_signal(&ends_at_once);
            }
            // If the channel is full it holds signals that say the same already.
            let _ = sender.try_send(signal);
        }
    };
    Builder::new().name("signals".to_owned()).spawn(forward).map_err(failed)?;
    Ok(receiver)
}

fn arm_second_signal(ends_at_once: &Arc<AtomicBool>) {
    let flag = ends_at_once.clone();
    let arm = move || {
        std::thread::sleep(SAME_REQUEST);
        flag.store(true, Ordering::SeqCst);
    };
    if Builder::new().name("second-signal".to_owned()).spawn(arm).is_err() {
        ends_at_once.store(true, Ordering::SeqCst);
    }
}
