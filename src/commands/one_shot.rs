//! One look at both sides, without watches and without a websocket: what `plan`, `explain` and `run --once` share (X5).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::warn;

use crate::apic::adapters::{ReadOnly, WithoutEvents};
use crate::apic::traits::ApicSession;
use crate::apic::{self, Client, Query};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::daemon::{apic_settings, reconciler_for};
use crate::exit::{EXIT_CONFIG, ExitError};
use crate::kube;
use crate::model::kubernetes::Object;
use crate::model::observed::{EPG, SUBNET};
use crate::model::owner::ANY_ANNOTATION;
use crate::reconcile::{Reconciler, Report};

/// How often a reconcile that ended early, or left something for later, is tried again.
const TRIES: u32 = 6;

/// How long a busy APIC is asked for a session, and the pauses meanwhile.
const MAX_LOGIN: Duration = Duration::from_secs(30);
const FIRST_LOGIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_LOGIN_PAUSE: Duration = Duration::from_secs(8);

/// A reconcile with its writes, and further ones while the APIC is busy or something is left for later.
pub(super) fn reconcile(reconciler: &mut Reconciler, apic: &WithoutEvents<'_>) -> Result<Report, ExitError> {
    reconcile_with(reconciler, apic, &|_, _| {})
}

/// The same without writes. If a read fails after something counted as done, it starts over: nothing was sent, and the
/// report that would have had it is lost.
pub(super) fn preview(reconciler: &mut Reconciler, apic: &ReadOnly<'_>) -> Result<Report, ExitError> {
    reconcile_with(reconciler, apic, &|reconciler, report| {
        if !apic.requests().is_empty() {
            reconciler.start_over();
            *report = Report::default();
        }
    })
}

fn reconcile_with(
    reconciler: &mut Reconciler,
    apic: &dyn ApicSession,
    on_failure: &dyn Fn(&mut Reconciler, &mut Report),
) -> Result<Report, ExitError> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(8));
    let mut all = Report::default();
    let mut tries_left = TRIES;
    while tries_left > 0 {
        tries_left -= 1;
        match reconciler.reconcile(apic, Instant::now(), &|| true) {
            Ok(report) => {
                all.done.extend(report.done);
                all.written = all.written.and(report.written);
                (all.unfinished, all.kept) = (report.unfinished, report.kept);
                if !report.unfinished {
                    return Ok(all);
                }
                if report.unread > 0 {
                    tries_left = TRIES;
                    continue;
                }
            }
            Err(error) if tries_left == 0 => return Err(apic_failure(&error)),
            Err(error) => {
                warn!(error:%; "reconcile failed; retrying");
                on_failure(reconciler, &mut all);
            }
        }
        std::thread::park_timeout(backoff.pause());
    }
    Ok(all)
}

/// A reconciler with all lists in it, and the listed objects that no rule needs.
pub(super) fn listed_reconciler(
    config: &Config,
    cluster: &kube::Client,
) -> Result<(Reconciler, Vec<Object>), ExitError> {
    let failed = |error: kube::Error| {
        let code =
            if matches!(error, kube::Error::Unauthorized | kube::Error::Forbidden { .. }) { EXIT_CONFIG } else { 1 };
        ExitError { code, message: format!("failed to read the cluster at {}: {error}", cluster.server()) }
    };
    let mut reconciler = reconciler_for(config, cluster).map_err(failed)?;
    let mut unneeded = Vec::new();
    for &kind in &config.rules.kinds {
        let all = cluster.list_all(kind, &mut kube::Pool::default()).map_err(failed)?;
        let (objects, others) = all.into_iter().partition(Object::is_kept);
        unneeded.extend::<Vec<Object>>(others);
        reconciler.cluster_changed(kube::Event::Listed { kind, objects }, Instant::now());
        reconciler.cluster_changed(kube::Event::Live { kind }, Instant::now());
    }
    Ok((reconciler, unneeded))
}

/// A login. An APIC throttles logins (503), so a busy one is waited for, as `run` does, for a while.
pub(super) fn login(config: &Config) -> Result<Client, ExitError> {
    let settings = apic_settings(config)?;
    let (end, mut backoff) = (Instant::now() + MAX_LOGIN, Backoff::new(FIRST_LOGIN_PAUSE, MAX_LOGIN_PAUSE));
    loop {
        match apic::login(&settings) {
            Err(error @ apic::Error::Busy(_)) => {
                let pause = backoff.pause();
                if Instant::now() + pause >= end {
                    return Err(apic_failure(&error));
                }
                let retry_in = format!("{:.1}s", pause.as_secs_f64());
                warn!(error:%, retry_in; "the APIC is busy; retrying the login for up to 30 s");
                std::thread::park_timeout(pause);
            }
            done => return done.map_err(|error| apic_failure(&error)),
        }
    }
}

/// The objects on the fabric with an annotation of aci-sync, of whatever cluster, or of the Python application: how many have
/// each.
pub(super) fn count_annotations(client: &Client) -> Result<BTreeMap<Box<str>, usize>, apic::Error> {
    let mut counts: BTreeMap<Box<str>, usize> = BTreeMap::new();
    for class in [EPG, SUBNET] {
        let query = Query::class(class).with_text("annotation", ANY_ANNOTATION);
        for annotation in client.read(&query, &|| true)?.into_iter().filter_map(|it| it.attributes.annotation) {
            *counts.entry(annotation).or_default() += 1;
        }
    }
    Ok(counts)
}

pub(super) fn apic_failure(error: &apic::Error) -> ExitError {
    let code = if matches!(error, apic::Error::Unauthorized(_)) { EXIT_CONFIG } else { 1 };
    ExitError { code, message: format!("APIC: {error}") }
}
