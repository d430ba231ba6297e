//! How the answers to a read become one result: pages are joined, and an incomplete answer is an error.

use super::decode::Answer;
use super::error::Error;
use super::query::{PAGE, Query};
use super::subscription::SubscriptionId;
use crate::model::dn::ParsedDn;
use crate::model::mo::Mo;

/// Reads objects; `get` sends one request. A class query is read page by page. An object that is on two pages, because
/// something changed in between, counts once.
pub fn read(query: &Query, get: &mut dyn FnMut(&str) -> Result<Answer, Error>) -> Result<Vec<Mo>, Error> {
    if !query.is_paged() {
        return Ok(complete(get(&query.target(&[]))?)?.mos);
    }
    let mut mos: Vec<Mo> = Vec::new();
    let mut seen = 0;
    let max_pages = query.max_pages();
    for page in 0..max_pages {
        let answer = get(&query.target(&[format!("page={page}"), format!("page-size={PAGE}")]))?;
        seen += answer.top_level;
        let mut last = None;
        mos.extend(answer.mos.into_iter().filter(|mo| {
            // They are sorted by DN.
            !query.needs_one_of_l3out()
                || ParsedDn::parse(&mo.dn)
                    .and_then(ParsedDn::l3out_of_owned)
                    .is_some_and(|l3out| last.replace(l3out.clone()).is_none_or(|last| last != l3out))
        }));
        if answer.top_level == 0 || seen >= answer.total {
            mos.sort_by(|a, b| a.dn.cmp(&b.dn));
            mos.dedup_by(|a, b| a.dn == b.dn);
            if query.is_strict() && mos.len() < answer.total {
                return Err(incomplete(mos.len(), answer.total));
            }
            return Ok(mos);
        }
    }
    Err(Error::Malformed(format!("class query of more than {max_pages} pages")))
}

/// The answer to a subscription: its id, and the snapshot that events follow.
pub fn snapshot(answer: Answer) -> Result<(SubscriptionId, Vec<Mo>), Error> {
    let answer = complete(answer)?;
    let id = answer.subscription.as_deref().and_then(SubscriptionId::new);
    let id = id.ok_or_else(|| Error::Malformed("no valid subscription id".to_owned()))?;
    Ok((id, answer.mos))
}

/// An answer that holds fewer objects than it counts must not be planned on: what it leaves out is not absent.
fn complete(answer: Answer) -> Result<Answer, Error> {
    if answer.total > answer.top_level {
        return Err(incomplete(answer.top_level, answer.total));
    }
    Ok(answer)
}

fn incomplete(got: usize, total: usize) -> Error {
    Error::Malformed(format!("incomplete, with {got} of {total} objects"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::SUBNET;

    /// R4: of 100,000 objects with our owner annotation only what shows their L3Outs is kept.
    #[test]
    fn one_object_of_each_l3out_is_enough() {
        let mo = |dn: &str| Mo { class: SUBNET.to_owned(), dn: dn.to_owned(), ..Mo::default() };
        let subnet = |l3out: &str, n: u8| mo(&format!("uni/tn-T/out-{l3out}/instP-E/extsubnet-[10.0.0.{n}/32]"));
        let mos =
            vec![subnet("A", 1), subnet("A", 2), mo("uni/tn-T/out-B/instP-E/odd"), subnet("B", 1), subnet("B", 2)];
        let query = Query::class(SUBNET);
        let mut answer = |_: &str| Ok(Answer { total: 5, top_level: 5, mos: mos.clone(), ..Answer::default() });
        assert_eq!(read(&query, &mut answer).unwrap().len(), 5);
        assert_eq!(read(&query.one_of_l3out(), &mut answer).unwrap(), [subnet("A", 1), subnet("B", 1)]);
    }
}
