//! `run`: starts the threads, notices when one ends, and stops them all in order (X1, X2).

use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select, tick};
use log::{debug, error, info, warn};
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

use super::event_loop::{Command, EventLoop, Inbox};
use super::reload::{self, Reload};
use super::threads::{End, Threads};
use super::watchdog::{BEAT, Heartbeat, Liveness, Watchdog};
use super::{apic_settings, reconciler_for, signals};
use crate::apic::{self, SessionHandle};
use crate::backoff::{Backoff, stopped_within};
use crate::config::Config;
use crate::exit::ExitError;
use crate::kube;
use crate::leadership::Leadership;
use crate::model::rules::Policy;
use crate::reconcile::Reconciler;
use crate::secret::Renewable;
use crate::status::routes;
use crate::status::server::{Connections, Listeners, Server};
use crate::status::service_manager::ServiceManager;
use crate::status::{Identity, Publisher, State};
use crate::time;

/// How many events may wait for the event loop. A full queue holds the watch streams back; the APIC session never waits.
const QUEUE: usize = 1024;

/// How long a request in flight may go on after the stop (X2).
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// How long a stop may take in all (X2).
const MAX_STOP: Duration = Duration::from_millis(1900);

/// How long a stop may take after a thread failed (X1).
const MAX_STOP_AFTER_FAILURE: Duration = Duration::from_millis(900);

/// What a thread does.
type Body = Box<dyn FnOnce() -> Result<(), ExitError> + Send>;

/// A thread that cannot fail.
fn thread(run: impl FnOnce() + Send + 'static) -> Body {
    Box::new(move || {
        run();
        Ok(())
    })
}

/// Reads the configuration again, for the password or the key in it.
pub type ReadConfig = dyn Fn() -> Result<Config, ExitError> + Send + Sync;

/// Runs until a signal or a failure; the exit code.
pub fn run(config: Config, cluster: kube::Client, read_config: Box<ReadConfig>) -> Result<u8, ExitError> {
    let signals = signals::listen()?;
    let manager = ServiceManager::at(std::env::var_os("NOTIFY_SOCKET").as_deref())
        .map_err(|error| ExitError::config(format!("NOTIFY_SOCKET: {error}")))?;
    log_start(&config, &cluster);
    let (stop_sender, stop) = bounded::<()>(0);
    let (cluster_sender, cluster_events) = bounded(QUEUE);
    let (fabric_sender, fabric_events) = bounded(QUEUE);
    let (command_sender, commands) = bounded(8);
    let mut settings = apic_settings(&config)?;
    let read_secret = move || read_config().map(|config| config.secret).map_err(|error| error.message);
    let secret = Renewable::new(config.secret.clone()).with_source(Arc::new(read_secret));
    settings.credentials = config.identity.with(secret.clone());
    settings.pacer = settings.pacer.until(stop.clone());
    let tls = settings.tls.clone();
    let lock = config.lease.as_ref().map(|(namespace, name)| kube::LeaseLock::new(cluster.clone(), namespace, name));
    let leadership = if lock.is_some() { Leadership::not_yet() } else { Leadership::permanent() };
    let (session, session_manager, refresher) =
        apic::session_threads(settings, leadership.clone(), fabric_sender, stop.clone());

    let mut threads = Threads::default();
    let panics = threads.panic_reporter();
    let mut spawn = |name, body: Body| {
        let failed = |error| ExitError::failed(format!("failed to start the thread {name}: {error}"));
        threads.spawn(name, body).map_err(failed)
    };
    for &kind in &config.rules.kinds {
        let watcher = kube::Watcher::new(cluster.clone(), kind, cluster_sender.clone(), stop.clone());
        spawn(kube::kinds::info(kind).watcher, thread(move || watcher.run()))?;
    }
    drop(cluster_sender);
    spawn("apic-session", thread(move || session_manager.run()))?;
    spawn("subscription-refresh", thread(move || refresher.run()))?;
    if let Some(lock) = lock.clone() {
        let elector = kube::LeaderElector::new(lock, leadership.clone(), stop.clone());
        let session = session.clone();
        spawn("lease", thread(move || elector.run(&|why| session.close_on_lost_leadership(why))))?;
    }
    let mut events = None;
    if config.events && config.policy != Policy::Observe {
        let (queue, emitter) = kube::events(cluster.clone(), leadership.clone(), stop.clone());
        spawn("kubernetes-events", thread(move || emitter.run()))?;
        events = Some(queue);
    }
    let inbox = Inbox { cluster: cluster_events, fabric: fabric_events, commands, stop: stop.clone() };
    // An event loop that fails drops its inbox before its failure is reported: the senders must not end first, and be taken
    // for the cause.
    let _open = inbox.clone();
    let heartbeat = Heartbeat::default();
    let publisher = Publisher::new(identity(&config, &cluster), manager.clone());
    let (listen, server_stop) = (config.listen.clone(), stop.clone());
    let event_loop = {
        let (cluster, session, leadership) = (cluster.clone(), session.clone(), leadership.clone());
        let (heartbeat, publisher, manager) = (heartbeat.clone(), publisher.clone(), manager.clone());
        move || {
            manager.set_state(State::WaitingForKubernetes);
            if let Some(reconciler) = wait_for_reconciler(&config, &cluster, &stop)? {
                let resync = config.resync;
                let event_loop = EventLoop::new(reconciler, inbox, session, leadership, heartbeat, resync);
                event_loop.with_outputs(events, publisher).run();
            }
            Ok(())
        }
    };
    spawn("reconciler", Box::new(event_loop))?;
    let listeners = Arc::new(Listeners::default());
    let connections = Arc::new(Connections::default());
    let handler = routes::handler(publisher.clone());
    for address in listen {
        let handler = handler.clone();
        let (name, errors) = (address.to_string(), publisher.clone());
        let on_bind = Box::new(move |error| errors.set_listen_error(&name, error));
        let server = Server::new(
            address,
            handler,
            connections.clone(),
            server_stop.clone(),
            listeners.clone(),
            panics.clone(),
            on_bind,
        );
        spawn("status-server", thread(move || server.run()))?;
    }

    // While the first lists are on their way.
    tls.prepare().map_err(|error| ExitError::config(format!("invalid TLS settings for the APIC: {error}")))?;
    manager.ready();
    let reload = Reload::default();
    let on_signal = |signal| match signal {
        SIGUSR1 => publisher.latest().log(),
        SIGUSR2 if command_sender.try_send(Command::ApproveDeletions).is_err() => {
            warn!(signal = "SIGUSR2"; "the event loop is busy; deletions not approved, send the signal again");
        }
        SIGHUP => {
            let (secret, cluster) = (secret.clone(), cluster.clone());
            reload.start(move || reload::credentials(&secret, &cluster));
        }
        _ => {}
    };
    let mut watchdog = Watchdog::new(heartbeat);
    let mut check = || {
        let liveness = watchdog.check();
        publisher.set_stalled(liveness == Liveness::Stalled);
        match liveness {
            Liveness::Alive => manager.watchdog_ping(),
            Liveness::Slow => manager.set_state(State::WaitingForAnswer),
            Liveness::Waiting | Liveness::Stalled => {}
        }
        liveness
    };
    let code = supervise(&mut threads, &mut check, &tick(BEAT), &signals, &on_signal);
    drop(stop_sender);
    listeners.close_all();
    manager.stopping();
    let release = || lock.iter().for_each(kube::LeaseLock::release_quickly);
    stop_all(threads, &cluster, &session, &release, code);
    Ok(code)
}

/// The first line: what runs here, with which settings that matter most.
fn log_start(config: &Config, cluster: &kube::Client) {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("BUILD_COMMIT"));
    let controllers: Vec<String> = config.controllers.iter().map(ToString::to_string).collect();
    let cluster_id = config.cluster_id.as_deref().unwrap_or("uid of the namespace kube-system");
    let lease = config.lease.as_ref().map_or("off".to_owned(), |(namespace, name)| format!("{namespace}/{name}"));
    info!(
        version, commit, policy:% = config.policy, server = cluster.server(), controllers = controllers.join(","),
        user:% = config.identity, cluster_id, leader_election = lease;
        "starting aci-sync"
    );
}

/// What the status server says of this process.
fn identity(config: &Config, cluster: &kube::Client) -> Identity {
    Identity {
        instance: kube::lease::host(),
        started: time::unix_now(),
        policy: config.policy.to_string(),
        kinds: config.rules.kinds.clone(),
        server: cluster.server().to_owned(),
        controllers: config.controllers.iter().map(ToString::to_string).collect(),
        lease: config.lease.as_ref().map(|(namespace, name)| format!("{namespace}/{name}")),
    }
}

/// Waits for the end: a signal, a thread that ended although it should not, or a stalled event loop. `ticks` says when
/// `check` looks at the loop's progress.
fn supervise(
    threads: &mut Threads,
    check: &mut dyn FnMut() -> Liveness,
    ticks: &Receiver<Instant>,
    signals: &Receiver<i32>,
    on_signal: &dyn Fn(i32),
) -> u8 {
    let ends = threads.ends().clone();
    loop {
        select! {
            recv(ticks) -> _ => {
                if check() == Liveness::Stalled {
                    error!("event loop stalled for 60 s; exiting. Please report this");
                    return 1;
                }
            },
            recv(signals) -> signal => match signal {
                Ok(signal @ (SIGUSR1 | SIGUSR2 | SIGHUP)) => on_signal(signal),
                _ => {
                    info!("shutting down; fabric objects stay in place");
                    return 0;
                }
            },
            recv(ends) -> end => {
                let Ok(ended) = end else { return 1 };
                threads.has_ended(&ended);
                let thread = ended.name;
                match ended.end {
                    End::Returned => error!(thread; "bug: thread ended unexpectedly; exiting"),
                    End::Panicked(message) => error!(thread, error = message; "bug: thread panicked; exiting. Please report this"),
                    End::Failed(error) => {
                        error!(error:%; "exiting");
                        return error.code;
                    }
                }
                return 1;
            },
        }
    }
}

/// X2: Kubernetes and the websocket end at once, the APIC request in flight gets a second, then come the logout and, at
/// the same time, the release of the Lease.
fn stop_all(
    mut threads: Threads,
    cluster: &kube::Client,
    session: &SessionHandle,
    release: &(dyn Fn() + Sync),
    code: u8,
) {
    let begun = Instant::now();
    let (last_request, longest) = match code {
        0 => (LAST_REQUEST, MAX_STOP),
        _ => (Duration::from_millis(300), MAX_STOP_AFTER_FAILURE),
    };
    let client = session.current();
    cluster.shutdown();
    session.stop();
    threads.wait_for("reconciler", begun + last_request);
    // Its last renewal must not come after the release.
    threads.wait_for("lease", begun + last_request);
    if let Some(client) = &client {
        client.shutdown();
    }
    std::thread::scope(|scope| {
        // If the thread cannot be started the Lease is not released, and runs out.
        let _ = Builder::new().name("release".to_owned()).spawn_scoped(scope, release);
        client.iter().for_each(apic::Client::logout_quickly);
    });
    let running = threads.join(begun + longest);
    if !running.is_empty() {
        warn!(threads = running.join(","); "threads still running at the end");
    }
    info!("stopped");
}

/// The reconciler, as soon as the cluster's id is known (O1). Nothing if the program stops before that.
fn wait_for_reconciler(
    config: &Config,
    cluster: &kube::Client,
    stop: &Receiver<()>,
) -> Result<Option<Reconciler>, ExitError> {
    let mut backoff = Backoff::new(Duration::from_millis(800), Duration::from_secs(30));
    let mut last_logged = String::new();
    loop {
        let error = match reconciler_for(config, cluster) {
            Ok(reconciler) => return Ok(Some(reconciler)),
            Err(error @ (kube::Error::Forbidden { .. } | kube::Error::NotFound)) => {
                return Err(ExitError::config(format!(
                    "failed to read the cluster id, the uid of the namespace kube-system: {error}; set --cluster-id to an id \
                     that never changes, or allow `get` on that namespace"
                )));
            }
            Err(error) => error.to_string(),
        };
        let pause = backoff.pause();
        if stopped_within(stop, Duration::ZERO) {
            return Ok(None);
        }
        if error == last_logged {
            debug!(error; "still waiting for the API server");
        } else {
            warn!(error, server = cluster.server(); "failed to reach the API server; retrying with growing pauses");
            last_logged = error;
        }
        if stopped_within(stop, pause) {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::never;

    use super::*;

    /// X1, F23: a thread that panics, fails or just ends is noticed and ends the process with a code that says so.
    #[test]
    fn every_unexpected_end_ends_the_process() {
        type Ending = fn() -> Result<(), ExitError>;
        let endings: [(Ending, u8); 3] =
            [(|| panic!("a bug"), 1), (|| Ok(()), 1), (|| Err(ExitError::config("a value")), 78)];
        for (ending, code) in endings {
            let mut threads = Threads::default();
            threads.spawn("one", ending).unwrap();
            let (_keep, signals) = bounded(1);
            let check = &mut || Liveness::Alive;
            assert_eq!(supervise(&mut threads, check, &never(), &signals, &|_| {}), code);
            assert!(threads.join(Instant::now() + MAX_STOP_AFTER_FAILURE).is_empty());
        }
    }

    /// X1, F24, I10: a reconciler that hangs ends the process after twelve checks, one that makes progress in between does not.
    #[test]
    fn a_stalled_loop_ends_the_process() {
        let ((hang, hanging), heartbeat) = (bounded::<()>(0), Heartbeat::default());
        let mut threads = Threads::default();
        let wait = move || {
            let _ = hanging.recv();
            Ok(())
        };
        threads.spawn("reconciler", wait).unwrap();
        let (tick, ticks) = bounded(0);
        let (_keep, signals) = bounded(1);
        let code = std::thread::scope(|scope| {
            let (mut watchdog, threads, signals) = (Watchdog::new(heartbeat.clone()), &mut threads, &signals);
            // It owns the receiver, so that nothing can be sent once it has ended.
            let main = scope.spawn(move || supervise(threads, &mut || watchdog.check(), &ticks, signals, &|_| {}));
            for turn in 0..3 {
                heartbeat.beat();
                let checks = (0..11).take_while(|_| tick.send(Instant::now()).is_ok()).count();
                assert_eq!(checks, 11, "turn {turn}");
            }
            let more = (0..99).take_while(|_| tick.send(Instant::now()).is_ok()).count();
            assert!(more <= 12, "{more} more checks of a stalled loop");
            main.join().unwrap()
        });
        assert_eq!(code, 1);
        drop(hang);
        assert!(threads.join(Instant::now() + MAX_STOP_AFTER_FAILURE).is_empty());
    }
}
