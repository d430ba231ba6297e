//! Ownership of objects: the owner annotation of this cluster, legacy marks, those of other clusters, and the keys of our
//! tags (O1 to O6).

use super::dn::Name;

/// What all owner annotations begin with, also those of the Python application.
pub const ANY_ANNOTATION: &str = "orchestrator:aci-";

/// The owner annotation of every aci-sync is this and a cluster id (O1).
const ANNOTATION_PREFIX: &str = "orchestrator:aci-sync:";

/// The `annotation` of the Python application that aci-sync replaces (O3).
const LEGACY_ANNOTATION: &str = "orchestrator:aci-k8-haystack";

/// Whose an object is, by its `annotation` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It has exactly our owner annotation (O1).
    Owned,
    /// It has the mark of the Python application or of an adopted cluster id (O3).
    Legacy,
    /// It has no annotation.
    Unmarked,
    /// It has another aci-sync's: another cluster's, or this cluster's before it was rebuilt (O5, O6).
    OtherCluster,
    /// It has any other annotation.
    Foreign,
}

impl Ownership {
    /// The name for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Ownership::Owned => "owned",
            Ownership::Legacy => "legacy",
            Ownership::OtherCluster => "other_cluster",
            Ownership::Unmarked | Ownership::Foreign => "foreign",
        }
    }
}

/// Our owner annotation, and the legacy marks.
#[derive(Debug, Clone)]
pub struct OwnerIdentity {
    annotation: String,
    /// What the keys of our tags begin with; the first is our own, the others are those of adopted ids (O3).
    tag_prefixes: Vec<String>,
    legacy: Vec<String>,
    /// Legacy objects may be deleted like owned ones: `purge --legacy` (T11).
    deletes_legacy: bool,
}

impl OwnerIdentity {
    /// Whether a text can be a cluster id: 1-40 of `[a-zA-Z0-9_.-]` (O1).
    pub fn is_id(text: &str) -> bool {
        (1..=40).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it))
    }

    /// The owner with this cluster id, which takes over from the Python application and the adopted ids.
    pub fn new(cluster_id: &str, adopted: &[String]) -> Self {
        let annotation_of = |id: &str| format!("{ANNOTATION_PREFIX}{id}");
        let tags_of = |id: &str| format!("aci-sync:{id}:");
        let mut owner = OwnerIdentity {
            annotation: annotation_of(cluster_id),
            tag_prefixes: vec![tags_of(cluster_id)],
            legacy: vec![LEGACY_ANNOTATION.to_owned()],
            deletes_legacy: false,
        };
        for id in adopted.iter().filter(|id| *id != cluster_id) {
            owner.legacy.push(annotation_of(id));
            owner.tag_prefixes.push(tags_of(id));
        }
        owner
    }

    /// The owner as `purge` deletes for it: with `legacy` also the objects of the Python application and of the adopted ids,
    /// else nothing but what carries its own annotation and its own tags (T11).
    pub fn purging(cluster_id: &str, adopted: &[String], legacy: bool) -> Self {
        let adopted = if legacy { adopted } else { &[] };
        OwnerIdentity { deletes_legacy: legacy, ..OwnerIdentity::new(cluster_id, adopted) }
    }

    /// Whether an object of this ownership may be deleted for its own sake.
    pub fn may_delete(&self, ownership: Ownership) -> bool {
        match ownership {
            Ownership::Owned => true,
            Ownership::Legacy => self.deletes_legacy,
            Ownership::Unmarked | Ownership::OtherCluster | Ownership::Foreign => false,
        }
    }

    /// The annotations of what may be deleted for its own sake.
    pub fn deletable_annotations(&self) -> impl Iterator<Item = &str> {
        self.all_annotations().take(if self.deletes_legacy { usize::MAX } else { 1 })
    }

    /// The key of the tag that marks an EPG of its L3Out as foreign (O4).
    pub fn tag_key(&self, epg: &Name) -> String {
        format!("{}{epg}", self.tag_prefixes[0])
    }

    /// What the keys of our tags begin with: ours, and those of adopted ids.
    pub fn tag_prefixes(&self) -> &[String] {
        &self.tag_prefixes
    }

    /// The EPG that a tag with this key is about, if it is a tag of ours or of an adopted id.
    pub fn tagged(&self, key: &str) -> Option<Name> {
        Name::object(self.tag_prefixes.iter().find_map(|prefix| key.strip_prefix(prefix))?).ok()
    }

    /// The id of this cluster.
    pub fn cluster_id(&self) -> &str {
        self.annotation.strip_prefix(ANNOTATION_PREFIX).unwrap_or_default()
    }

    /// The `annotation` that makes an object ours.
    pub fn annotation(&self) -> &str {
        &self.annotation
    }

    /// Our owner annotation and the legacy marks, for the queries that find objects with them (R4).
    pub fn all_annotations(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.annotation.as_str()).chain(self.legacy.iter().map(String::as_str))
    }

    /// Whose an `annotation` is.
    pub fn classify(&self, annotation: &str) -> Ownership {
        if annotation == self.annotation {
            Ownership::Owned
        } else if self.legacy.iter().any(|it| it == annotation) {
            Ownership::Legacy
        } else if annotation.is_empty() {
            Ownership::Unmarked
        } else if annotation.starts_with(ANNOTATION_PREFIX) {
            Ownership::OtherCluster
        } else {
            Ownership::Foreign
        }
    }
}

/// The cluster id in the owner annotation of any aci-sync.
pub fn id_in(annotation: &str) -> Option<&str> {
    annotation.strip_prefix(ANNOTATION_PREFIX)
}

/// The cluster id in another aci-sync's owner annotation.
pub fn other_cluster(annotation: &str, ownership: Ownership) -> Option<Box<str>> {
    id_in(annotation).filter(|_| ownership == Ownership::OtherCluster).map(Into::into)
}
