//! What the answers to a read are worth: pages put together, and nothing believed that is not whole.

use super::client::SubscriptionId;
use super::decode::Answer;
use super::error::Error;
use super::query::{MAX_PAGES, PAGE, Query};
use crate::model::mo::Mo;

/// Reads objects; `get` asks for one target. A class query is read page by page; an object that appears on two pages,
/// because something changed in between, is taken once.
pub fn read(query: &Query, get: &mut dyn FnMut(&str) -> Result<Answer, Error>) -> Result<Vec<Mo>, Error> {
    if !query.is_paged() {
        return Ok(whole(get(&query.target(&[]))?)?.mos);
    }
    let mut mos: Vec<Mo> = Vec::new();
    let mut seen = 0;
    for page in 0..MAX_PAGES {
        let answer = get(&query.target(&[format!("page={page}"), format!("page-size={PAGE}")]))?;
        seen += answer.top_level;
        mos.extend(answer.mos);
        if answer.top_level == 0 || seen >= answer.total {
            mos.sort_by(|a, b| a.dn.cmp(&b.dn));
            mos.dedup_by(|a, b| a.dn == b.dn);
            return Ok(mos);
        }
    }
    Err(Error::Malformed(format!("a class query of more than {MAX_PAGES} pages")))
}

/// The answer to a subscription: its id, and the snapshot that events follow.
pub fn snapshot(answer: Answer) -> Result<(SubscriptionId, Vec<Mo>), Error> {
    let answer = whole(answer)?;
    let id = answer.subscription.as_deref().and_then(SubscriptionId::new);
    let id = id.ok_or_else(|| Error::Malformed("a subscription without an id".to_owned()))?;
    Ok((id, answer.mos))
}

/// An answer that says that there is more than it holds is no view to plan on: what it leaves out is not absent.
fn whole(answer: Answer) -> Result<Answer, Error> {
    if answer.total > answer.top_level {
        return Err(Error::Malformed(format!("{} objects of {}", answer.top_level, answer.total)));
    }
    Ok(answer)
}
