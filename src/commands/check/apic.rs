//! The controllers: the way to each, their certificates, and one login.

use std::net::{SocketAddr, TcpStream};

use super::report::Outcome;
use super::{World, compare_clocks, judge_end};
use crate::apic::{self, Controller, Error, Query};
use crate::daemon::apic_settings;
use crate::net::{dial, look};
use crate::secret::Renewable;

/// A TCP connection to a controller.
pub(super) struct Connection {
    controller: Controller,
    stream: TcpStream,
    address: SocketAddr,
}

/// What is wrong with one of several controllers is a failure only if no controller works.
fn one_of_many(is_any_good: bool, subject: &str, text: String, fix: &str) -> Outcome {
    if is_any_good { Outcome::warn(subject, text, fix) } else { Outcome::fail(subject, text, fix) }
}

/// A name, an address and a TCP connection of each controller.
pub(super) fn reach(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(config) = &world.config else { return Vec::new() };
    let dialed: Vec<_> = config.controllers.iter().map(|it| (it.clone(), dial(&it.host, it.port))).collect();
    let is_any_good = dialed.iter().any(|(_, result)| result.is_ok());
    let mut outcomes = Vec::new();
    for (controller, result) in dialed {
        let subject = controller.to_string();
        match result {
            Ok((stream, address)) => {
                outcomes.push(Outcome::ok(&subject, format!("connected to {}", address.ip())));
                world.connections.push(Connection { controller, stream, address });
            }
            Err(error) => {
                let fix = "check --apic, the name service, and the firewall on the way";
                outcomes.push(one_of_many(is_any_good, &subject, format!("failed to connect: {error}"), fix));
            }
        }
    }
    outcomes
}

/// The certificate of each controller that can be reached.
pub(super) fn tls(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(config) = &world.config else { return Vec::new() };
    let settings = match apic_settings(config) {
        Ok(settings) => settings,
        Err(error) => return vec![Outcome::fail("", error.message, "correct --apic-ca or --apic-fingerprint")],
    };
    let mut looks = Vec::new();
    for Connection { controller, stream, address } in std::mem::take(&mut world.connections) {
        let seen = look(&settings.tls, &controller.host, stream, address, "/api/aaaListDomains.json");
        looks.push((controller, seen));
    }
    world.apic = Some(settings);
    let is_any_good = looks.iter().any(|(_, seen)| seen.is_ok());
    let mut outcomes = Vec::new();
    for (controller, seen) in looks {
        let subject = controller.to_string();
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                outcomes.push(one_of_many(is_any_good, &subject, error, "see docs/configuration.md about --apic-ca"));
                continue;
            }
        };
        let what = "certificate accepted; it ";
        // One in the past is trusted by its fingerprint, or not verified at all: a run works.
        let fix = "renew the certificate of the controller";
        let outcome = seen.end.map(|end| judge_end(&subject, what, end, fix, Outcome::warn));
        outcomes.push(outcome.unwrap_or_else(|| Outcome::ok(&subject, format!("{what}never ends"))));
        world.trusted.push((controller, seen.date));
    }
    outcomes
}

/// The clocks of the controllers against ours.
pub(super) fn clock(world: &mut World<'_>) -> Vec<Outcome> {
    world.trusted.iter().map(|(controller, date)| compare_clocks(&controller.to_string(), date.as_deref())).collect()
}

/// One login. A refused one is not repeated, here or at another controller: that could lock the account (W8).
pub(super) fn login(world: &mut World<'_>) -> Vec<Outcome> {
    let (Some(settings), Some(config), Some(secret)) = (&mut world.apic, &world.config, &world.secret) else {
        return Vec::new();
    };
    settings.controllers = world.trusted.iter().map(|(controller, _)| controller.clone()).collect();
    settings.credentials = config.identity.with(Renewable::new(secret.clone()));
    let session = match apic::login(settings) {
        Ok(session) => session,
        Err(error @ Error::Unauthorized(_)) => {
            return vec![Outcome::fail("", error.to_string(), settings.credentials.remedy())];
        }
        Err(error) => return vec![Outcome::fail("", error.to_string(), "wait a minute and run check again")],
    };
    let subject = session.controller().to_string();
    let identity = config.identity.to_string();
    let outcome = if session.login_answer().must_change_password {
        let text = format!("logged in as {identity:?}; the APIC wants the password to be changed");
        Outcome::warn(&subject, text, "change the password of this user before it expires")
    } else {
        Outcome::ok(&subject, format!("logged in as {identity:?}"))
    };
    world.session = Some(session);
    vec![outcome]
}

/// The controllers that were not logged in at: the daemon uses them if the first one is away. No login follows a refused
/// one, nor one at the same controller that was not answered: it may have been counted there (W8).
pub(super) fn others(world: &mut World<'_>) -> Vec<Outcome> {
    let (Some(settings), Some(session)) = (&world.apic, &world.session) else { return Vec::new() };
    let mut outcomes = Vec::new();
    let (mut is_refused, mut was_tried) = (false, true);
    for controller in &settings.controllers {
        if controller == session.controller() {
            was_tried = false;
            continue;
        }
        let subject = controller.to_string();
        let fix = "compare this controller with the others; the daemon uses it if they are away";
        if was_tried {
            outcomes.push(Outcome::warn(&subject, "no valid answer to the login of apic.login; not tried again", fix));
            continue;
        }
        if is_refused {
            outcomes
                .push(Outcome::skip(&subject, "not tried after a refused login, because that could lock the account"));
            continue;
        }
        outcomes.push(match apic::try_login(settings, controller) {
            Ok(()) => Outcome::ok(&subject, "login accepted"),
            Err(error) => {
                is_refused = matches!(error, Error::Unauthorized(_) | Error::Forbidden(_));
                Outcome::warn(&subject, error.to_string(), fix)
            }
        });
    }
    if outcomes.is_empty() { vec![Outcome::ok("", "there is no other controller")] } else { outcomes }
}

/// The websocket of the session, by which the APIC reports changes, and a subscription.
pub(super) fn websocket(world: &mut World<'_>) -> Vec<Outcome> {
    let (Some(settings), Some(session)) = (&world.apic, &world.session) else { return Vec::new() };
    let l3out = world.l3outs.first();
    let query = l3out.map(|l3out| Query::object(l3out).subtree(&["l3extOut", "l3extInstP", "l3extSubnet"]));
    let subject = session.controller().to_string();
    vec![match (apic::try_events(settings, session, query.as_ref()), l3out) {
        (Ok(()), Some(l3out)) => Outcome::ok(&subject, format!("opened; subscribed to {l3out}")),
        (Ok(()), None) => Outcome::ok(&subject, "opened; there is no L3Out to subscribe to"),
        (Err(error), _) => {
            let fix = "let proxies and firewalls pass websockets (GET /socket... with Upgrade), and the user subscribe";
            Outcome::fail(&subject, error.to_string(), fix)
        }
    }]
}

/// The release of the APIC.
pub(super) fn version(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(session) = &world.session else { return Vec::new() };
    let text = match session.release() {
        Ok(text) => text,
        Err(error) => {
            let text = format!("release not known: {error}");
            return vec![Outcome::warn("", text, "let the user read firmwareCtrlrRunning")];
        }
    };
    let Some(version) = Release::parse(&text) else {
        let fix = "compare the release with the needs in README.md";
        return vec![Outcome::warn("", format!("unknown APIC release {text:?}"), fix)];
    };
    vec![if version < Release(3, 2, 1, (1, "l")) {
        let text = format!("APIC {text} has no annotations, by which aci-sync knows its objects");
        Outcome::fail("", text, "upgrade to 3.2(1l) or later")
    } else if version < Release(4, 2, 4, (0, "")) {
        Outcome::warn("", format!("APIC {text} is older than 4.2(4)"), "upgrade to 4.2(4) or later")
    } else {
        Outcome::ok("", format!("APIC {text}"))
    }]
}

/// `6.0(9c)`: numbers, then letters, of which more are later: `z`, `aa`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Release<'a>(u32, u32, u32, (usize, &'a str));

impl Release<'_> {
    fn parse(text: &str) -> Option<Release<'_>> {
        let (major, rest) = text.split_once('.')?;
        let (minor, rest) = rest.split_once('(')?;
        let patch = rest.strip_suffix(')')?;
        let letters = patch.trim_start_matches(|it: char| it.is_ascii_digit());
        let number = &patch[..patch.len() - letters.len()];
        Some(Release(major.parse().ok()?, minor.parse().ok()?, number.parse().ok()?, (letters.len(), letters)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T6: releases are compared by their numbers and letters.
    #[test]
    fn releases_are_ordered() {
        let names =
            ["3.1(2m)", "3.2(1l)", "3.2(1m)", "4.2(3z)", "4.2(3aa)", "4.2(4)", "4.2(4i)", "5.2(10a)", "6.0(9c)"];
        assert!(names.map(|it| Release::parse(it).unwrap()).is_sorted());
        for bad in ["", "6.0", "6.0(c)", "6.0(9c", "six"] {
            assert_eq!(Release::parse(bad), None, "{bad}");
        }
    }
}
