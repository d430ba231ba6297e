//! Switches for what could not be verified on a real APIC: each has the setting that the sources make likely, and
//! the others, so that the daemon is tested against both.

use std::time::Duration;

/// In which order the objects of one change are announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Parents before their children, as in the recorded traces.
    ParentsFirst,
    /// Children before their parents.
    ChildrenFirst,
    /// The parents alone: what happened below them is not announced.
    ParentsOnly,
}

/// What becomes of `10.1.2.3/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostBits {
    /// Stored as it is written.
    Kept,
    /// Stored as `10.1.2.0/24`.
    Cleared,
    /// Refused with code 801.
    Refused,
}

/// The answer to a POST with `rsp-subtree=full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostAnswer {
    /// The posted root with all that is below it.
    Nested,
    /// The posted objects one beside the other.
    Flat,
}

/// The answer to a POST with `rsp-subtree=modified`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAnswer {
    /// What changed, nested under the posted root; other children than posted first.
    Nested,
    /// What changed, one object beside the other, each with its `dn`.
    Flat,
    /// Nothing, although something changed.
    Empty,
    /// Nested, but without every second changed object below the root, the first one included.
    Partial,
}

/// nginx's limit on requests, at each controller: more are refused with a 503 in HTML before anything is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// Requests a second.
    pub per_second: f64,
    /// How many more are taken at once. With 0 every request that is closer to the last accepted one than
    /// `1 / per_second` is refused, as by nginx's `limit_req` without `burst`.
    pub burst: u32,
    /// Whether a refusal says `Retry-After: 1`.
    pub retry_after: bool,
}

/// What the APIC calls its tokens like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStyle {
    /// Base64 with `/`, `+` and `=`, as in older releases.
    Base64,
    /// Three parts with dots, as in newer releases.
    Jwt,
}

/// The switches. `Default` is what the sources make likely.
#[derive(Debug, Clone)]
pub struct Variants {
    /// HTTP status for an expired or unknown token: 403 or 401.
    pub expired_status: u16,
    /// How tokens look.
    pub token_style: TokenStyle,
    /// Whether the token from before an aaaRefresh stays good until its own end.
    pub old_token_lives: bool,
    /// Whether the websocket is closed as soon as the last token of its session ends.
    pub socket_ends_with_token: bool,
    /// Whether a signature is compared with the request target as it was sent, or percent-decoded.
    pub signs_as_sent: bool,
    /// Whether a signed subscription has to name its websocket (`APIC-WebSocket-Session`); if not, it gets the latest one of
    /// the user.
    pub signed_subscriptions_name_socket: bool,
    /// Whether a `webtokenSession` ends with its websocket.
    pub webtoken_ends_with_socket: bool,
    /// Whether a `webtokenSession` ends after a token's life.
    pub webtoken_expires: bool,
    /// Whether a refusal names the flaw of a certificate, or is the one that a request without any proof gets.
    pub certificate_flaws_named: bool,
    /// Logins a second and controller, after a first burst of eight; more get a 503 in HTML. `None`: no limit.
    pub login_throttle: Option<u32>,
    /// Whether IPv6 prefixes are stored in RFC 5952 form, or as they were written.
    pub ipv6_canonical: bool,
    /// What becomes of host bits in a prefix.
    pub host_bits: HostBits,
    /// Whether a POST that touches two tenants is refused (a cluster of several controllers does).
    pub reject_multi_tenant: bool,
    /// Whether changes of `tagAnnotation` and `tagTag` are announced.
    pub tag_events: bool,
    /// Order of the events of what one POST creates and changes.
    pub created_order: Order,
    /// Order of the events of what falls with a deleted parent.
    pub deleted_order: Order,
    /// Whether `modTs` in the event of a deletion is the time of the deletion, the same for all that fell together (in the
    /// recorded traces a tenant and its child have the same), or that of the object's last change.
    pub deletions_have_time: bool,
    /// For so long after an object was made, changes below it (of later requests) are not announced; zero: all are.
    pub settle: Duration,
    /// After so long the fabric sets `configSt` and `pcTag` of a new EPG by itself, announced; `None`: never.
    pub late_changes: Option<Duration>,
    /// Whether a fault whose condition has gone stays for a while, `cleared` and `retaining`, or goes at once. An APIC
    /// keeps it for the retention interval, an hour by default.
    pub faults_retained: bool,
    /// Whether the fabric makes children of its own (`fvRsCustQosPol`, `fvRsTenantMonPol`).
    pub implicit_children: bool,
    /// Whether `status=modified` on an absent object creates it, or is an error.
    pub modified_upserts: bool,
    /// Code of the error about a missing parent.
    pub missing_parent_code: u32,
    /// Code of the error about an unknown property. With 400 its text is the one recorded by the Ansible collection.
    pub unknown_property_code: u32,
    /// Code of the error about `children` written before `attributes`: 400, or 822 about the naming property.
    pub children_first_code: u32,
    /// Whether the error about a malformed value (801) names the object by its DN or by its RN.
    pub validation_names_dn: bool,
    /// Expressions that a filter may hold besides its outermost one; `None`: any number (releases before 6.2).
    pub filter_limit: Option<usize>,
    /// Answer to a POST with `rsp-subtree=full`.
    pub post_answer: PostAnswer,
    /// Answer to a POST with `rsp-subtree=modified`.
    pub write_answer: WriteAnswer,
    /// Whether a nested answer shows the posted root although only objects below it changed. If not, the topmost
    /// changed objects are at the top level, with their `dn`.
    pub bare_root: bool,
    /// Whether a read with `rsp-subtree-class` shows the objects between the root and those of the classes asked for.
    pub containers_kept: bool,
    /// Whether `refresh-timeout` is understood, or a 400 (releases before 3.2(3)).
    pub refresh_timeout_known: bool,
    /// Life of a subscription that names no `refresh-timeout`.
    pub subscription_lifetime: Duration,
    /// Whether a subscription to a DN that does not exist reports its creation.
    pub missing_dn_announced: bool,
    /// Whether a subscription falls silent once its time is over, or goes on being served although its id is lost.
    pub lapsed_are_silent: bool,
    /// Whether the refresh of an id that is lost is answered with 200 all the same.
    pub dead_ids_refreshed: bool,
    /// `totalCount` as a number in place of a string.
    pub numeric_total: bool,
    /// `/` as `\/` in the texts of errors.
    pub escaped_slashes: bool,
    /// Quotes in the texts of errors are not escaped, so that the body is not JSON.
    pub unescaped_quotes: bool,
    /// Objects on a page at most, whatever `page-size` asks for.
    pub page_cap: Option<usize>,
    /// Every later page starts this number of objects early (positive) or late (negative), as if others had changed
    /// things between two pages.
    pub pages_shift: isize,
    /// More objects than this in one answer are refused.
    pub result_limit: usize,
    /// Longest request line in bytes; a longer one gets a 414 in HTML.
    pub request_line: usize,
    /// Largest body in bytes; a larger one gets a 413 in HTML.
    pub body_limit: usize,
    /// Requests that a controller's web server takes, logins and websocket upgrades included; `None`: all.
    pub request_throttle: Option<Throttle>,
    /// Every n-th request to the cluster is refused with a 503 in HTML.
    pub refuse_every: Option<u32>,
    /// This share of the requests to the cluster fails and is not executed: in turn with a 503, a 502, a 504 in HTML
    /// and with a 500 in JSON. Which ones depends on their number only.
    pub fail_share: f64,
    /// Every answer is sent this much later.
    pub latency: Duration,
    /// Whether `subscription=yes` is refused with a 400, while the same read without it works.
    pub subscriptions_refused: bool,
    /// Whether a token that is unknown or ended gets a 403 in HTML, as from a proxy, and not the APIC's JSON.
    pub html_forbidden: bool,
    /// Whether websockets stay open and answer pings, but deliver no event.
    pub events_lost: bool,
    /// The release that a login answers.
    pub version: &'static str,
    /// Whether a login answers that the password has to be changed.
    pub change_password: bool,
    /// The tenants that users may see; `None`: the whole fabric. Elsewhere reads find nothing.
    pub visible_tenants: Option<&'static [&'static str]>,
    /// Whether a class query of such a user is refused with a 403, or answered with what the user may see.
    pub class_queries_refused: bool,
    /// `writePrivileges` of each tenant's `DnDomainMapEntry` in the answer to a login; `None`: no such entries.
    pub write_privileges: Option<&'static str>,
}

impl Default for Variants {
    fn default() -> Self {
        Variants {
            expired_status: 403,
            token_style: TokenStyle::Base64,
            old_token_lives: true,
            socket_ends_with_token: true,
            signs_as_sent: false,
            signed_subscriptions_name_socket: true,
            webtoken_ends_with_socket: true,
            webtoken_expires: false,
            certificate_flaws_named: false,
            login_throttle: Some(2),
            ipv6_canonical: true,
            host_bits: HostBits::Kept,
            reject_multi_tenant: true,
            tag_events: true,
            created_order: Order::ParentsFirst,
            deleted_order: Order::ParentsFirst,
            deletions_have_time: true,
            settle: Duration::ZERO,
            late_changes: Some(Duration::from_millis(30)),
            faults_retained: false,
            implicit_children: true,
            modified_upserts: true,
            missing_parent_code: 102,
            unknown_property_code: 400,
            children_first_code: 400,
            validation_names_dn: true,
            filter_limit: Some(20),
            post_answer: PostAnswer::Nested,
            write_answer: WriteAnswer::Nested,
            bare_root: true,
            containers_kept: true,
            refresh_timeout_known: true,
            subscription_lifetime: Duration::from_secs(60),
            missing_dn_announced: true,
            lapsed_are_silent: true,
            dead_ids_refreshed: false,
            numeric_total: false,
            escaped_slashes: false,
            unescaped_quotes: false,
            page_cap: None,
            pages_shift: 0,
            result_limit: 100_000,
            request_line: 8 * 1024,
            body_limit: 8 << 20,
            request_throttle: None,
            refuse_every: None,
            fail_share: 0.0,
            latency: Duration::ZERO,
            subscriptions_refused: false,
            html_forbidden: false,
            events_lost: false,
            version: "6.0(9c)",
            change_password: false,
            visible_tenants: None,
            class_queries_refused: false,
            write_privileges: Some("admin"),
        }
    }
}

impl Variants {
    /// Whether users may see an object. What is above the tenants, and the faults in the topology, all see.
    pub fn shows(&self, dn: &str) -> bool {
        let tenant = dn.strip_prefix("uni/tn-").and_then(|it| it.split('/').next());
        tenant.is_none_or(|it| self.visible_tenants.is_none_or(|all| all.contains(&it)))
    }

    /// The other setting of everything at once: what a daemon that trusts none of these facts must survive too.
    pub fn opposite() -> Variants {
        Variants {
            expired_status: 401,
            token_style: TokenStyle::Jwt,
            old_token_lives: false,
            socket_ends_with_token: false,
            signs_as_sent: true,
            signed_subscriptions_name_socket: false,
            webtoken_ends_with_socket: false,
            webtoken_expires: true,
            certificate_flaws_named: true,
            ipv6_canonical: false,
            reject_multi_tenant: false,
            tag_events: false,
            created_order: Order::ChildrenFirst,
            deleted_order: Order::ChildrenFirst,
            settle: Duration::from_millis(500),
            late_changes: None,
            implicit_children: false,
            modified_upserts: false,
            unknown_property_code: 120,
            children_first_code: 822,
            validation_names_dn: false,
            filter_limit: None,
            post_answer: PostAnswer::Flat,
            write_answer: WriteAnswer::Flat,
            containers_kept: false,
            refresh_timeout_known: false,
            lapsed_are_silent: false,
            numeric_total: true,
            escaped_slashes: true,
            page_cap: Some(50),
            class_queries_refused: true,
            ..Variants::default()
        }
    }
}
