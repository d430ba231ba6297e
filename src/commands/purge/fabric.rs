//! What `purge` reads of the fabric. Each read is complete or an error: nothing is deleted on a part of a view (W1).

use std::collections::BTreeSet;
use std::time::Instant;

use super::Setup;
use crate::apic::{Client, Error, Query};
use crate::commands::one_shot::{apic_failure, login};
use crate::config::Config;
use crate::exit::ExitError;
use crate::model::cache::FabricCache;
use crate::model::dn::{EpgDn, L3outDn, ParsedDn};
use crate::model::mo::Mo;
use crate::model::observed::{CONTRACTS, EPG, L3OUT, L3out, SUBNET, TAG};
use crate::model::owner::OwnerIdentity;

/// A session at the APIC, and what was read in it.
pub(super) struct Fabric<'a> {
    config: &'a Config,
    /// The L3Outs that are meant; empty: all.
    l3outs: &'a BTreeSet<L3outDn>,
    client: Client,
    since: Instant,
    /// The L3Outs that were read.
    pub cache: FabricCache,
}

impl<'a> Fabric<'a> {
    pub(super) fn log_in(setup: &'a Setup<'_>, owner: OwnerIdentity) -> Result<Fabric<'a>, ExitError> {
        let (config, l3outs, since) = (&setup.config, &setup.l3outs, Instant::now());
        Ok(Fabric { config, l3outs, client: login(config)?, since, cache: FabricCache::new(owner) })
    }

    pub(super) fn log_out(&self) {
        self.client.logout();
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Logs in again before the token ends: people may take their time to consent, and large fabrics take theirs.
    pub(super) fn keep_session(&mut self) -> Result<(), ExitError> {
        if self.since.elapsed() >= self.client.lifetimes().token / 2 {
            self.client.logout();
            self.since = Instant::now();
            self.client = login(self.config)?;
        }
        Ok(())
    }

    /// The named L3Outs that do not exist.
    pub(super) fn missing(&self) -> impl Iterator<Item = &L3outDn> {
        self.l3outs.iter().filter(|dn| self.cache.l3out(dn) == Some(&L3out::Missing))
    }

    /// Reads each L3Out with something to delete, and those that are named.
    pub(super) fn read_all(&mut self) -> Result<(), ExitError> {
        let marked = self.find_marked()?;
        let mut l3outs: BTreeSet<L3outDn> = marked.into_iter().filter_map(|(_, l3out)| l3out).collect();
        l3outs.extend(self.l3outs.iter().cloned());
        l3outs.iter().try_for_each(|dn| self.read_l3out(dn)).map_err(|error| apic_failure(&error))
    }

    /// The DNs of all that carries the annotations and tags, wherever it is (R4).
    pub(super) fn marked(&mut self) -> Result<BTreeSet<String>, ExitError> {
        self.keep_session()?;
        Ok(self.find_marked()?.into_iter().map(|(dn, _)| dn).collect())
    }

    fn find_marked(&self) -> Result<Vec<(String, Option<L3outDn>)>, ExitError> {
        let owner = self.cache.owner();
        let mut found = Vec::new();
        for annotation in owner.deletable_annotations() {
            // The filter of an APIC decides nothing: the whole value does.
            let is_exact = |mo: &Mo| mo.attributes.annotation.as_deref() == Some(annotation);
            for class in [EPG, SUBNET] {
                let mos = self.read_class(Query::class(class).with_value("annotation", annotation))?;
                found.extend(mos.into_iter().filter(is_exact).map(|mo| mo.dn));
            }
        }
        for prefix in owner.tag_prefixes() {
            let mos = self.read_class(Query::class(TAG).with_text("key", prefix))?;
            let is_ours = |mo: &Mo| matches!(ParsedDn::parse(&mo.dn), Some(ParsedDn::Tag(_, key)) if owner.tagged(&key).is_some());
            found.extend(mos.into_iter().filter(is_ours).map(|mo| mo.dn));
        }
        let l3out_of = |dn: &str| ParsedDn::parse(dn)?.l3out_of_owned();
        let with_l3out = found.into_iter().map(|dn| (l3out_of(&dn), dn)).map(|(l3out, dn)| (dn, l3out));
        let is_meant = |l3out: &Option<L3outDn>| l3out.as_ref().is_some_and(|it| self.l3outs.contains(it));
        Ok(with_l3out.filter(|(_, l3out)| self.l3outs.is_empty() || is_meant(l3out)).collect())
    }

    fn read_class(&self, query: Query) -> Result<Vec<Mo>, ExitError> {
        self.client.read(&query.strict(), &|| true).map_err(|error| apic_failure(&error))
    }

    /// Reads an EPG as it is now (W7), with its L3Out if a tag there is to go.
    pub(super) fn read_again(&mut self, dn: &EpgDn, with_tag: bool) -> Result<(), Error> {
        self.cache.begin_reconcile();
        if with_tag {
            return self.read_l3out(&dn.l3out);
        }
        let classes: Vec<&str> = std::iter::once(SUBNET).chain(CONTRACTS).collect();
        let mos = self.client.read(&Query::object(dn).with_children(&classes), &|| true)?;
        self.cache.put_epg(dn, &mos, false);
        Ok(())
    }

    fn read_l3out(&mut self, dn: &L3outDn) -> Result<(), Error> {
        let classes: Vec<&str> = [L3OUT, EPG, SUBNET, TAG].into_iter().chain(CONTRACTS).collect();
        let mos = self.client.read(&Query::object(dn).subtree(&classes), &|| true)?;
        self.cache.put_l3out(dn, &mos, false);
        Ok(())
    }
}
