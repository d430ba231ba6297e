//! Reads as URL paths and parameters, made of checked parts only (D1).

use std::fmt;

/// Objects in a page of a class query; the APIC refuses answers of about 100,000 objects.
pub const PAGE: usize = 10_000;

/// The most pages that are read, in case an APIC sends pages without an end.
pub const MAX_PAGES: usize = 100;

/// A read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    path: String,
    parameters: Vec<String>,
    class: Option<&'static str>,
    max_pages: Option<usize>,
    is_strict: bool,
    one_of_l3out: bool,
}

impl Query {
    /// One object by its DN.
    pub fn object(dn: &impl fmt::Display) -> Query {
        Query { path: format!("/api/mo/{dn}.json"), parameters: Vec::new(), ..Query::default() }
    }

    /// All objects of a class, anywhere. Read page by page.
    pub fn class(class: &'static str) -> Query {
        let parameters = vec![format!("order-by={class}.dn")];
        Query { path: format!("/api/class/{class}.json"), parameters, class: Some(class), ..Query::default() }
    }

    /// The object and everything below it, of these classes, as a flat list.
    pub fn subtree(mut self, classes: &[&str]) -> Query {
        self.parameters.push("query-target=subtree".to_owned());
        self.parameters.push(format!("target-subtree-class={}", classes.join(",")));
        self
    }

    /// The object with its children of these classes.
    pub fn with_children(mut self, classes: &[&str]) -> Query {
        self.parameters.push("rsp-subtree=full".to_owned());
        self.parameters.push(format!("rsp-subtree-class={}", classes.join(",")));
        self
    }

    /// The object with everything below it, of both the configurable attributes only: what can be posted again.
    pub fn configuration(mut self) -> Query {
        self.parameters.push("rsp-subtree=full".to_owned());
        self.parameters.push("rsp-prop-include=config-only".to_owned());
        self
    }

    /// Restricts a class query to objects whose property has exactly this value, which must not hold a quote.
    pub fn with_value(mut self, property: &str, value: &str) -> Query {
        if let Some(class) = self.class {
            self.parameters.push(format!("query-target-filter=eq({class}.{property},%22{value}%22)"));
        }
        self
    }

    /// Restricts a class query to objects whose property contains a text. The text must not hold a quote or a character of
    /// patterns other than a dot, which matches any character: the answer may hold more than was asked for.
    pub fn with_text(mut self, property: &str, text: &str) -> Query {
        if let Some(class) = self.class {
            self.parameters.push(format!("query-target-filter=wcard({class}.{property},%22{text}%22)"));
        }
        self
    }

    /// A class query that fails unless its pages hold as many objects as the APIC counts (T11).
    pub fn strict(mut self) -> Query {
        self.is_strict = true;
        self
    }

    /// Whether its pages must hold as many objects as the APIC counts.
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// A class query that fails if it has more than this number of pages.
    pub fn at_most(mut self, pages: usize) -> Query {
        self.max_pages = Some(pages);
        self
    }

    /// The most pages that are read.
    pub fn max_pages(&self) -> usize {
        self.max_pages.unwrap_or(MAX_PAGES)
    }

    /// A class query of EPGs or subnets that asks only which L3Outs hold some: of each page one object of each L3Out is kept,
    /// since there may be 100,000.
    pub fn one_of_l3out(mut self) -> Query {
        self.one_of_l3out = true;
        self
    }

    /// Whether one object of each L3Out is enough.
    pub fn needs_one_of_l3out(&self) -> bool {
        self.one_of_l3out
    }

    /// Whether it is read page by page.
    pub fn is_paged(&self) -> bool {
        self.class.is_some()
    }

    /// The path with the query's parameters and further ones.
    pub fn target(&self, more: &[String]) -> String {
        let parameters = [&self.parameters, more].concat();
        let separator = if parameters.is_empty() { "" } else { "?" };
        format!("{}{separator}{}", self.path, parameters.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R3, R4, W7: the three reads of the contract, byte by byte.
    #[test]
    fn targets() {
        let dn = "uni/tn-T/out-L";
        assert_eq!(Query::object(&dn).target(&[]), "/api/mo/uni/tn-T/out-L.json");
        let l3out = Query::object(&dn).subtree(&["l3extOut", "l3extInstP"]).target(&["subscription=yes".to_owned()]);
        assert_eq!(
            l3out,
            "/api/mo/uni/tn-T/out-L.json?query-target=subtree&target-subtree-class=l3extOut,l3extInstP&subscription=yes"
        );
        let epg = Query::object(&"uni/tn-T/out-L/instP-E").with_children(&["l3extSubnet", "fvRsCons"]).target(&[]);
        assert_eq!(epg, "/api/mo/uni/tn-T/out-L/instP-E.json?rsp-subtree=full&rsp-subtree-class=l3extSubnet,fvRsCons");
        let marked = Query::class("l3extSubnet").with_value("annotation", "orchestrator:aci-sync:a").target(&[]);
        assert_eq!(
            marked,
            "/api/class/l3extSubnet.json?order-by=l3extSubnet.dn&query-target-filter=eq(l3extSubnet.annotation,%22orchestrator:aci-sync:a%22)"
        );
    }
}
