//! Reading foreign values: what the decoders of our own documents lack, for all kinds.

use ipnet::IpNet;

use super::report::Place;
use crate::document::{Node, Report as Reader, Value};
use crate::warnings::WarningReason;

/// The text in field `name` of `node`.
pub(super) fn field_text<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    match node.field(name).map(|entry| &entry.value.value) {
        Some(Value::Text(text)) => Some(text),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_)) | None => None,
    }
}

impl<'n> Reader<'n> {
    /// Where the reader stands.
    pub(super) fn here(&self) -> Place {
        let (path, line) = self.place();
        Place { path, line }
    }

    /// A prefix, masked. An IPv4-mapped one is refused: elsewhere it matches no packet, here it would be an IPv4 prefix.
    pub(super) fn cidr(&mut self, node: &'n Node) -> Option<IpNet> {
        let before = self.warnings.len();
        let prefix = self.prefix(node);
        let is_mapped = |warning: &crate::document::Finding<_>| warning.kind == WarningReason::MappedPrefix;
        if self.warnings.iter().skip(before).any(is_mapped) {
            self.warnings.truncate(before);
            self.problem(
                "an IPv4 prefix in IPv6 notation matches no packet in the cluster it comes from, and would match here",
                "write it as IPv4, or remove it",
            );
            return None;
        }
        prefix
    }

    /// The items of a list, each with where it is.
    pub(super) fn placed<T>(
        &mut self,
        node: &'n Node,
        mut decode: impl FnMut(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<Vec<(Place, T)>> {
        self.list(node, |reader, node| {
            let place = reader.here();
            decode(reader, node).map(|item| (place, item))
        })
    }

    /// An object with exactly one of the fields `names`.
    pub(super) fn one_of<T>(
        &mut self,
        node: &'n Node,
        names: &[&'static str],
        decode: impl FnOnce(&mut Self, &'static str, &'n Node) -> Option<T>,
    ) -> Option<T> {
        let fields = self.fields(node, names)?;
        let mut there = names.iter().filter(|name| fields.get(name).is_some());
        if let (Some(name), None) = (there.next(), there.next()) {
            return self.optional(fields, name, |reader, node| decode(reader, name, node));
        }
        self.problem("exactly one of its fields must be there", format!("write one of {}", names.join(", ")));
        None
    }

    /// A list that must not be empty.
    pub(super) fn filled_list<T>(
        &mut self,
        node: &'n Node,
        decode: impl FnMut(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.problem("the list is empty", "list at least one item");
        }
        self.list(node, decode)
    }
}
