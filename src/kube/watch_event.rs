//! The reports of a watcher.

use crate::model::kubernetes::{Key, Kind, Object};

/// What a watcher reports to the event loop.
#[derive(Debug)]
pub enum Event {
    /// A complete list: it replaces the whole old view of that kind (W1).
    Listed {
        /// The kind.
        kind: Kind,
        /// The objects that a rule needs.
        objects: Vec<Object>,
    },
    /// An object was added or changed, and is needed by a rule.
    Upsert(Object),
    /// An object was deleted, or no rule needs it any more.
    Gone {
        /// The kind.
        kind: Kind,
        /// Which one.
        key: Key,
    },
    /// The server accepted a watch. Whether it delivers anything is not known yet (W1).
    Opened {
        /// The kind.
        kind: Kind,
    },
    /// The open watch delivered an event or a bookmark: the view is complete and live.
    Live {
        /// The kind.
        kind: Kind,
    },
    /// The watch ended, and is being resumed at the same version.
    Interrupted {
        /// The kind.
        kind: Kind,
    },
    /// A list is due or under way: the view is incomplete.
    Relisting {
        /// The kind.
        kind: Kind,
        /// The reason, for the log.
        why: String,
    },
}
