//! Lists, page by page (K1), and requests that read one page.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::time::Instant;

use log::warn;

use super::client::{Client, PAGE_TIMEOUT, path_of, percent_encoded, reject_html};
use super::decode::{self, Item, Page, Progress};
use super::error::Error;
use super::kinds::{self, KindInfo};
use super::pool::Pool;
use crate::metrics::{self, Verb};
use crate::model::kubernetes::{Key, Kind, Object};

/// Objects in a page: about 2 MB of JSON for Pods, as client-go and kube-rs ask for.
const PAGE: usize = 500;

/// The most objects of a list; a cluster of the largest size that Kubernetes supports has 150,000 Pods.
const MAX_OBJECTS: usize = 4000 * PAGE;

/// A page below this size is decoded from memory, which is twice as fast as from a stream; a larger one as it comes in, so
/// its size on the wire costs no memory (X3).
const IN_MEMORY: u64 = 4 << 20;

/// How often a list starts over because its continue token expired, before it counts as failed.
const LIST_TRIES: usize = 3;

/// Which objects of a list are kept.
type Keeps = fn(&Object) -> bool;

impl Client {
    /// A complete list with the version to watch from. Pages of different lists are never mixed: if a token expires, the
    /// list starts over.
    /// Only objects that a rule needs are kept.
    pub fn list(&self, kind: Kind, pool: &mut Pool) -> Result<(Vec<Object>, String), Error> {
        self.list_where(kind, pool, Object::is_kept)
    }

    /// The same with every object, to explain also why one is not needed.
    pub fn list_all(&self, kind: Kind, pool: &mut Pool) -> Result<Vec<Object>, Error> {
        self.list_where(kind, pool, |_| true).map(|(objects, _)| objects)
    }

    fn list_where(&self, kind: Kind, pool: &mut Pool, keeps: Keeps) -> Result<(Vec<Object>, String), Error> {
        let listed = in_tries(|| {
            let mut listed = Vec::new();
            let version = self.pages(kind, &mut |mut objects: Vec<Object>| {
                objects.retain_mut(|it| {
                    it.forget_unwatched_owner(&self.kinds);
                    keeps(it)
                });
                objects.iter_mut().for_each(|it| pool.share(it));
                listed.extend(objects);
                Ok(())
            })?;
            Ok((listed, version))
        })?;
        metrics::listed(kind as usize);
        Ok(listed)
    }

    /// Reads the pages of a list, and gives the objects of each to `take`, which may end it. Returns the list's version.
    pub(super) fn pages<T: Item>(
        &self,
        kind: Kind,
        take: &mut dyn FnMut(Vec<T>) -> Result<(), Error>,
    ) -> Result<String, Error> {
        let mut version: Option<String> = None;
        let mut last: Option<Key> = None;
        let (mut next, mut limit, mut requested) = (String::new(), PAGE, 0);
        let mut buffer = Vec::new();
        while requested < MAX_OBJECTS {
            requested += limit;
            let mut progress = Progress::default();
            let page = match self.page(&path_of_page(kind, limit, &next), kind, &mut buffer, &mut progress) {
                Err(Error::TooLarge(why)) => {
                    limit = smaller_page(kind, limit, &why, &progress, last.as_ref())?;
                    continue;
                }
                page => page?,
            };
            last = page.objects.last().map(T::key).or(last);
            let is_empty = page.objects.is_empty();
            if version.as_ref().is_some_and(|it| *it != page.resource_version) {
                return Err(Error::Expired);
            }
            take(page.objects)?;
            if page.next.is_empty() {
                return Ok(page.resource_version);
            }
            version = Some(page.resource_version);
            if page.next == next || is_empty {
                return Err(Error::Malformed("list: a page without progress".to_owned()));
            }
            next = page.next;
            // The large objects may be behind us.
            limit = (limit * 2).min(PAGE);
        }
        Err(Error::Malformed(format!("list: more than {MAX_OBJECTS} objects")))
    }

    /// The newest version of a kind. It costs the server one consistent read and the network one object.
    pub fn newest_version(&self, kind: Kind) -> Result<String, Error> {
        let path = path_of_page(kind, 1, "");
        Ok(self.page::<Object>(&path, kind, &mut Vec::new(), &mut Progress::default())?.resource_version)
    }

    /// One object as it is now, by the right to list; `None` if it does not exist or no rule needs it.
    pub fn look_up(&self, kind: Kind, key: &Key) -> Result<Option<Object>, Error> {
        let KindInfo { api_path, plural, .. } = kinds::info(kind);
        let (namespace, name) = (percent_encoded(&key.namespace), percent_encoded(&key.name));
        let path = format!("{api_path}/namespaces/{namespace}/{plural}?fieldSelector=metadata.name%3D{name}");
        let mut page = self.page::<Object>(&path, kind, &mut Vec::new(), &mut Progress::default())?;
        page.objects.iter_mut().for_each(|it| it.forget_unwatched_owner(&self.kinds));
        Ok(page.objects.into_iter().find(|it| it.key() == key && it.is_kept()))
    }

    /// Reads one page. The buffer is for its bytes; all pages of a list use the same one.
    fn page<T: Item>(
        &self,
        path: &str,
        kind: Kind,
        buffer: &mut Vec<u8>,
        progress: &mut Progress,
    ) -> Result<Page<T>, Error> {
        let begun = Instant::now();
        let response =
            self.get(Verb::List, path, |request| request.config().timeout_global(Some(PAGE_TIMEOUT)).build())?;
        // One byte above the limit shows that there was more.
        let body = response.into_body().into_with_config().limit(2 * self.largest_page).reader();
        let mut body = body.take(self.largest_page + 1);
        buffer.clear();
        let read = body.by_ref().take(IN_MEMORY).read_to_end(buffer);
        reject_html(buffer)?;
        let is_whole = read.as_ref().is_ok_and(|length| (*length as u64) < IN_MEMORY.min(self.largest_page));
        if is_whole {
            return decode::page(kind, buffer);
        }
        let body = buffer.as_slice().chain(Failed(read.err())).chain(body);
        let body = Counting { inner: body, bytes: progress.bytes.clone() };
        let page = decode::read_page(kind, BufReader::with_capacity(64 * 1024, body), progress);
        if progress.bytes.get() > self.largest_page {
            return Err(Error::TooLarge(format!("larger than {} MiB", self.largest_page >> 20)));
        }
        match page {
            // It may take too long because it is large.
            Err(Error::Unreachable(_)) if progress.items > 0 && begun.elapsed() >= PAGE_TIMEOUT => {
                let size = progress.bytes.get() as f64 / 1e6;
                Err(Error::TooLarge(format!("only {size:.1} MB read in {} s", PAGE_TIMEOUT.as_secs())))
            }
            page => page,
        }
    }
}

/// Makes a list again whose continue token expired, a few times.
pub(super) fn in_tries<T>(mut list: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..LIST_TRIES {
        match list() {
            Err(Error::Expired) => {}
            done => return done,
        }
    }
    list()
}

/// The size of the next page after one that was too large; an error if smaller pages would not help.
fn smaller_page(kind: Kind, limit: usize, why: &str, progress: &Progress, last: Option<&Key>) -> Result<usize, Error> {
    // Not even one object came in whole.
    if limit == 1 || progress.items == 0 {
        let place = last.map(|it| format!(" after {it}")).unwrap_or_default();
        return Err(Error::TooLarge(format!("one {kind}{place}: {why}")));
    }
    let fewer = progress.items.min(limit / 2).max(1);
    let mut reason = format!("{limit} objects: {why}");
    if let Some((size, key)) = &progress.largest {
        reason += &format!("; largest object: {key}, about {:.1} MB", *size as f64 / 1e6);
    }
    warn!(kind:%, reason, count = fewer; "list page too large; requesting smaller pages");
    Ok(fewer)
}

/// The path of a page.
fn path_of_page(kind: Kind, limit: usize, next: &str) -> String {
    let path = format!("{}?limit={limit}", path_of(kind));
    if next.is_empty() { path } else { format!("{path}&continue={}", percent_encoded(next)) }
}

/// Says once that reading has failed.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Counts the bytes read.
struct Counting<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + length as u64);
        Ok(length)
    }
}
