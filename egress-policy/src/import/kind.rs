//! The kinds that can be read. A new one is a file beside this one and a line in [`KINDS`].

use super::gather::Foreign;
use super::{Import, Source, asm, calico, cilium, cnp, egress_router, istio, netpol, openshift, osm, ours, ovn};

/// A kind of foreign rules.
pub struct Kind {
    /// What the command line calls it.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// The objects that belong to it.
    pub apis: &'static [Api],
    /// Converts all objects of the kind, since some change each other's meaning.
    pub(super) convert: fn(&[&Foreign<'_>], &mut Import<'_>),
    /// For lists that are plain text and no objects: converts all of them. Such a kind is never found out, only asked for.
    pub(super) list: Option<fn(&[Source<'_>], &mut Import<'_>)>,
}

/// Objects as their API names them.
#[derive(Debug)]
pub struct Api {
    /// The `apiVersion`s that are read.
    pub versions: &'static [&'static str],
    /// The `kind`.
    pub kind: &'static str,
    /// The fields beside apiVersion, kind, metadata and status.
    pub fields: &'static [&'static str],
}

/// Every kind, in the order in which they are converted.
pub const KINDS: &[&Kind] = &[
    &openshift::KIND,
    &ovn::KIND,
    &netpol::KIND,
    &cnp::KIND,
    &cilium::KIND,
    &calico::KIND,
    &istio::KIND,
    &osm::KIND,
    &asm::KIND,
    &egress_router::OBJECTS,
    &egress_router::REDIRECT,
    &egress_router::HTTP,
    &egress_router::DNS,
    &ours::KIND,
];

/// The kind of this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
