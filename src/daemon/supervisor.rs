//! `run`: starts the threads, notices when one ends, and stops them all in order (X1, X2).

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use log::{debug, error, info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::event_loop::{Command, EventLoop, Inbox};
use super::service_manager::{ServiceManager, Status};
use super::threads::{End, Threads};
use super::watchdog::{BEAT, Heartbeat, Liveness, Watchdog};
use super::{apic_settings, reconciler_for};
use crate::apic::{self, SessionHandle};
use crate::backoff::{Backoff, stopped_within};
use crate::config::Config;
use crate::exit::ExitError;
use crate::kube;
use crate::leadership::Leadership;
use crate::model::kubernetes::Kind;
use crate::model::rules::Policy;
use crate::reconcile::Reconciler;
use crate::secret::Renewable;

/// Events that wait for the reconciler. A full queue holds the watch streams back; the APIC listener never waits.
const QUEUE: usize = 1024;

/// How long a request in flight may go on after the stop (X2).
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// How long a stop may take in all (X2).
const MAX_STOP: Duration = Duration::from_millis(1900);

/// How long a stop may take after a thread failed (X1).
const MAX_FAILURE: Duration = Duration::from_millis(900);

/// What a thread does.
type Body = Box<dyn FnOnce() -> Result<(), ExitError> + Send>;

/// A thread that cannot fail.
fn thread(run: impl FnOnce() + Send + 'static) -> Body {
    Box::new(move || {
        run();
        Ok(())
    })
}

/// Reads the configuration again, for the password in it.
pub type Reload = dyn Fn() -> Result<Config, ExitError> + Send + Sync;

/// Runs until a signal or a failure; the exit code.
pub fn run(config: Config, cluster: kube::Client, reload: Box<Reload>) -> Result<u8, ExitError> {
    let signals = signals()?;
    let manager = ServiceManager::at(std::env::var_os("NOTIFY_SOCKET").as_deref())
        .map_err(|error| ExitError::config(format!("NOTIFY_SOCKET: {error}")))?;
    let (stop_sender, stop) = bounded::<()>(0);
    let (cluster_sender, cluster_events) = bounded(QUEUE);
    let (fabric_sender, fabric_events) = bounded(QUEUE);
    let (command_sender, commands) = bounded(8);
    let mut settings = apic_settings(&config)?;
    let read = move || reload().map(|it| it.password).map_err(|failure| failure.message);
    settings.password = settings.password.with_source(Arc::new(read));
    settings.pacer = settings.pacer.until(stop.clone());
    let (password, tls) = (settings.password.clone(), settings.tls.clone());
    let lock = config.lease.as_ref().map(|(namespace, name)| kube::LeaseLock::new(cluster.clone(), namespace, name));
    let leadership = if lock.is_some() { Leadership::not_yet() } else { Leadership::permanent() };
    let (link, listener, refresher) = apic::link(settings, leadership.clone(), fabric_sender, stop.clone());

    let mut threads = Threads::default();
    let mut spawn = |name, body: Body| {
        let failed = |error| ExitError::failed(format!("cannot start the thread {name}: {error}"));
        threads.spawn(name, body).map_err(failed)
    };
    for kind in Kind::ALL {
        let watcher = kube::Watcher::new(cluster.clone(), kind, cluster_sender.clone(), stop.clone());
        spawn(kube::kinds::info(kind).watcher, thread(move || watcher.run()))?;
    }
    drop(cluster_sender);
    spawn("apic-listener", thread(move || listener.run()))?;
    spawn("subscription-refresh", thread(move || refresher.run()))?;
    if let Some(lock) = lock.clone() {
        let (candidate, link) = (kube::LeaderElector::new(lock, leadership.clone(), stop.clone()), link.clone());
        spawn("lease", thread(move || candidate.run(&|why| link.close_on_lost_leadership(why))))?;
    }
    let mut events = None;
    if config.events && config.policy != Policy::Observe {
        let (queue, emitter) = kube::events(cluster.clone(), leadership.clone(), stop.clone());
        spawn("kubernetes-events", thread(move || emitter.run()))?;
        events = Some(queue);
    }
    let inbox = Inbox { cluster: cluster_events, fabric: fabric_events, commands, stop: stop.clone() };
    // A reconciler that fails gives its inbox up before its failure is reported: the senders must not end first, and be
    // taken for the cause.
    let _open = inbox.clone();
    let heartbeat = Heartbeat::default();
    let reconciler = {
        let (cluster, link, leadership, heartbeat) =
            (cluster.clone(), link.clone(), leadership.clone(), heartbeat.clone());
        let manager = manager.clone();
        move || {
            manager.set_status(Status::WaitingForKubernetes);
            if let Some(reconciler) = own_reconciler(&config, &cluster, &stop)? {
                let reconciler = EventLoop::new(reconciler, inbox, link, leadership, heartbeat, config.resync);
                reconciler.telling(events, manager).run();
            }
            Ok(())
        }
    };
    spawn("reconciler", Box::new(reconciler))?;

    // While the first lists are on their way.
    tls.prepare().map_err(|error| ExitError::config(format!("the APIC's TLS: {error}")))?;
    let renewal = Renewal::default();
    let renew = || {
        let (password, cluster) = (password.clone(), cluster.clone());
        renewal.begin(move || renew_credentials(&password, &cluster));
    };
    manager.ready();
    let mut watchdog = Watchdog::new(heartbeat);
    let mut look = || {
        let look = watchdog.check();
        match look {
            Liveness::Alive => manager.watchdog_ping(),
            Liveness::Slow => manager.set_status(Status::WaitingForAnswer),
            Liveness::Waiting | Liveness::Stalled => {}
        }
        look
    };
    let code = supervise(&mut threads, &mut look, &tick(BEAT), &signals, &command_sender, &renew);
    drop(stop_sender);
    manager.stopping();
    let release = || lock.iter().for_each(kube::LeaseLock::release);
    stop_all(threads, &cluster, &link, &release, code);
    Ok(code)
}

/// Waits for the end: a signal, a thread that ended although nobody stopped it, or a reconciler that stands still.
/// `looks` says when its heart is looked at, by `look`.
fn supervise(
    threads: &mut Threads,
    look: &mut dyn FnMut() -> Liveness,
    looks: &Receiver<Instant>,
    signals: &Receiver<i32>,
    commands: &Sender<Command>,
    renew: &dyn Fn(),
) -> u8 {
    let ends = threads.ends().clone();
    let ask = |command| {
        if commands.try_send(command).is_err() {
            warn!("the reconciler is busy; what was asked for by a signal is not done, ask again");
        }
    };
    loop {
        select! {
            recv(looks) -> _ => {
                if look() == Liveness::Stalled {
                    error!("the event loop has not turned for 60 s; please report this");
                    return 1;
                }
            },
            recv(signals) -> signal => match signal {
                Ok(SIGUSR1) => ask(Command::LogStatus),
                Ok(SIGUSR2) => ask(Command::ApproveDeletions),
                Ok(SIGHUP) => renew(),
                _ => {
                    info!("stopping; what is on the fabric stays");
                    return 0;
                }
            },
            recv(ends) -> end => {
                let (name, end) = match end {
                    Ok(end) => end,
                    Err(_) => return 1,
                };
                threads.has_ended(name);
                match end {
                    End::Returned => error!("the thread {name} ended unexpectedly"),
                    End::Panicked(message) => error!("the thread {name} panicked: {message}; please report this"),
                    End::Failed(failure) => {
                        error!("{}", failure.message);
                        return failure.code;
                    }
                }
                return 1;
            },
        }
    }
}

/// What SIGHUP began. It has a thread of its own, because a file system that hangs must not keep main from its signals.
#[derive(Default)]
struct Renewal(RefCell<Option<JoinHandle<()>>>);

impl Renewal {
    /// Begins, unless what was begun before has not ended.
    fn begin(&self, renew: impl FnOnce() + Send + 'static) {
        let mut running = self.0.borrow_mut();
        if running.as_ref().is_some_and(|it| !it.is_finished()) {
            return warn!("SIGHUP: the credentials are still being read since the last time");
        }
        match Builder::new().name("renewal".to_owned()).spawn(renew) {
            Ok(thread) => *running = Some(thread),
            Err(error) => warn!("SIGHUP: the old credentials stay in use: cannot start a thread: {error}"),
        }
    }
}

/// SIGHUP: the APIC password and the Kubernetes credentials are read again. What cannot be read leaves the old value (X4).
fn renew_credentials(password: &Renewable, cluster: &kube::Client) {
    if let Err(why) = password.renew() {
        return warn!("SIGHUP: the old credentials stay in use: {why}");
    }
    match cluster.renew_credentials() {
        Ok(()) => info!("SIGHUP: the credentials were read again"),
        Err(error) => warn!("SIGHUP: the old Kubernetes credentials stay in use: {error}"),
    }
}

/// X2: Kubernetes and the websocket end at once, the APIC request in flight gets a second, then come the logout and, at
/// the same time, the release of the Lease.
fn stop_all(mut threads: Threads, cluster: &kube::Client, link: &SessionHandle, release: &(dyn Fn() + Sync), code: u8) {
    let begun = Instant::now();
    let (last_request, longest) = match code {
        0 => (LAST_REQUEST, MAX_STOP),
        _ => (Duration::from_millis(300), MAX_FAILURE),
    };
    let session = link.current();
    cluster.shutdown();
    link.stop();
    threads.wait_for("reconciler", begun + last_request);
    // Its last renewal must not come after the release.
    threads.wait_for("lease", begun + last_request);
    if let Some(session) = &session {
        session.shutdown();
    }
    std::thread::scope(|scope| {
        // Without a thread for it nobody releases the Lease, and it runs out.
        let _ = Builder::new().name("release".to_owned()).spawn_scoped(scope, release);
        session.iter().for_each(apic::Client::logout);
    });
    let running = threads.join(begun + longest);
    if !running.is_empty() {
        warn!("still running at the end: {}", running.join(", "));
    }
    info!("stopped");
}

/// The reconciler, once the cluster's id is known (O1). Nothing where the program stops before that.
fn own_reconciler(
    config: &Config,
    cluster: &kube::Client,
    stop: &Receiver<()>,
) -> Result<Option<Reconciler>, ExitError> {
    let mut backoff = Backoff::new(Duration::from_millis(800), Duration::from_secs(30));
    let mut told = String::new();
    loop {
        let why = match reconciler_for(config, cluster) {
            Ok(reconciler) => return Ok(Some(reconciler)),
            Err(kube::Error::Forbidden { message }) => {
                return Err(no_id(&format!(
                    "the API server does not let me read the namespace kube-system ({message})"
                )));
            }
            Err(kube::Error::NotFound) => return Err(no_id("there is no namespace kube-system")),
            Err(error) => error.to_string(),
        };
        let pause = backoff.pause();
        if stopped_within(stop, Duration::ZERO) {
            return Ok(None);
        }
        if why == told {
            debug!("still waiting for the API server: {why}");
        } else {
            warn!("waiting for the API server, with growing pauses: {why}");
            told = why;
        }
        if stopped_within(stop, pause) {
            return Ok(None);
        }
    }
}

fn no_id(why: &str) -> ExitError {
    let mend = "give an id that never changes with --cluster-id, or allow `get` on that namespace";
    ExitError::config(format!("no cluster id: {why}; {mend}"))
}

/// Two SIGTERMs or SIGINTs within this time are one wish to stop: some programs send two (X2).
const ONE_WISH: Duration = Duration::from_millis(500);

/// The signals that concern us, on a channel. A SIGTERM or SIGINT that comes some time after the first ends the process
/// at once.
fn signals() -> Result<Receiver<i32>, ExitError> {
    let failed = |error: std::io::Error| ExitError::failed(format!("cannot listen for signals: {error}"));
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, again.clone()).map_err(failed)?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]).map_err(failed)?;
    let (sender, receiver) = bounded(8);
    // It blocks in the kernel for the whole life of the process and holds nothing: nobody waits for its end.
    let forward = move || {
        let mut first = true;
        for signal in signals.forever() {
            if matches!(signal, SIGTERM | SIGINT) && std::mem::take(&mut first) {
                let (later, at_once) = (again.clone(), again.clone());
                let begin = move || {
                    std::thread::sleep(ONE_WISH);
                    later.store(true, Ordering::SeqCst);
                };
                if Builder::new().name("second-signal".to_owned()).spawn(begin).is_err() {
                    at_once.store(true, Ordering::SeqCst);
                }
            }
            // A full channel holds signals that say the same already.
            let _ = sender.try_send(signal);
        }
    };
    Builder::new().name("signals".to_owned()).spawn(forward).map_err(failed)?;
    Ok(receiver)
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
            let ((_keep, signals), (commands, _also)) = (bounded(1), bounded(1));
            let look = &mut || Liveness::Alive;
            assert_eq!(supervise(&mut threads, look, &never(), &signals, &commands, &|| {}), code);
            assert!(threads.join(Instant::now() + MAX_FAILURE).is_empty());
        }
    }

    /// X4: credentials whose file system hangs keep main from nothing, and wait for one another.
    #[test]
    fn credentials_that_hang_hold_nothing_up() {
        let ((hang, hanging), (done, is_done)) = (bounded::<()>(0), bounded(2));
        let (renewal, again) = (Renewal::default(), done.clone());
        renewal.begin(move || {
            let _ = hanging.recv();
            let _ = done.send(1);
        });
        let skipped = again.clone();
        renewal.begin(move || skipped.send(2).unwrap());
        drop(hang);
        assert_eq!(is_done.recv(), Ok(1));
        let thread = renewal.0.borrow_mut().take();
        thread.unwrap().join().unwrap();
        renewal.begin(move || again.send(3).unwrap());
        assert_eq!(is_done.recv(), Ok(3));
    }

    /// X1, F24, I10: a reconciler that hangs ends the process after twelve looks, one that turns in between does not.
    #[test]
    fn a_reconciler_that_stands_still_ends_the_process() {
        let ((hang, hanging), heartbeat) = (bounded::<()>(0), Heartbeat::default());
        let mut threads = Threads::default();
        let wait = move || {
            let _ = hanging.recv();
            Ok(())
        };
        threads.spawn("reconciler", wait).unwrap();
        let (look, looks) = bounded(0);
        let ((_keep, signals), (commands, _also)) = (bounded(1), bounded(1));
        let code = std::thread::scope(|scope| {
            let (mut watchdog, threads, signals, commands) =
                (Watchdog::new(heartbeat.clone()), &mut threads, &signals, &commands);
            // It owns the receiver, so that nothing can be sent once it has ended.
            let main =
                scope.spawn(move || supervise(threads, &mut || watchdog.check(), &looks, signals, commands, &|| {}));
            for turn in 0..3 {
                heartbeat.beat();
                let looked = (0..11).take_while(|_| look.send(Instant::now()).is_ok()).count();
                assert_eq!(looked, 11, "turn {turn}");
            }
            let more = (0..99).take_while(|_| look.send(Instant::now()).is_ok()).count();
            assert!(more <= 12, "{more} looks more at a heart that stands still");
            main.join().unwrap()
        });
        assert_eq!(code, 1);
        drop(hang);
        assert!(threads.join(Instant::now() + MAX_FAILURE).is_empty());
    }
}
