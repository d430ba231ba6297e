//! SIGHUP: credentials are read again.

use std::cell::RefCell;
use std::thread::{Builder, JoinHandle};

use log::{info, warn};

use crate::kube;
use crate::secret::Renewable;

/// A reload in its own thread, because a file system that hangs must not keep main from its signals.
#[derive(Default)]
pub struct Reload(RefCell<Option<JoinHandle<()>>>);

impl Reload {
    /// Starts, unless the last one is still running.
    pub fn start(&self, reload: impl FnOnce() + Send + 'static) {
        let mut running = self.0.borrow_mut();
        if running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            warn!("credentials are still being read since the last SIGHUP");
            return;
        }
        match Builder::new().name("reload".to_owned()).spawn(reload) {
            Ok(thread) => *running = Some(thread),
            Err(error) => warn!(error:%; "failed to start a thread to read the credentials; the old ones stay in use"),
        }
    }
}

/// Reads the APIC credentials and the Kubernetes credentials again. If one cannot be read the old value stays (X4).
pub fn credentials(secret: &Renewable, cluster: &kube::Client) {
    if let Err(error) = secret.renew() {
        warn!(error; "failed to read the APIC credentials; the old ones stay in use");
        return;
    }
    match cluster.renew_credentials() {
        Ok(()) => info!("credentials read again"),
        Err(error) => warn!(error:%; "failed to read the Kubernetes credentials; the old ones stay in use"),
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    /// X4: credentials whose file system hangs hold up nothing else, and one reload waits for the other.
    #[test]
    fn credentials_that_hang_hold_nothing_up() {
        let (hang, hanging) = bounded::<()>(0);
        let (first_done, done) = bounded(2);
        let second_done = first_done.clone();
        let third_done = first_done.clone();
        let reload = Reload::default();
        reload.start(move || {
            let _ = hanging.recv();
            let _ = first_done.send(1);
        });
        reload.start(move || second_done.send(2).unwrap());
        drop(hang);
        assert_eq!(done.recv(), Ok(1));
        let thread = reload.0.borrow_mut().take();
        thread.unwrap().join().unwrap();
        reload.start(move || third_done.send(3).unwrap());
        assert_eq!(done.recv(), Ok(3));
    }
}
