//! Text with a syntax, as the schema has it: how long it can be, and what the API server can tell of it. Only schemas are made of these
//! types; values are `String`s until [`document`](crate::document) reads them.
//!
//! Each check is looser than the reader's, never stricter, and cheap enough for 8,000 rules.
#![expect(dead_code, reason = "types that only schemas are made of")]

use schemars::JsonSchema;

/// Longest prefix in text: an IPv6 address with an IPv4 ending, and `/128`.
const LONGEST_PREFIX: usize = 49;
/// Longest name in text: 253 characters, the wildcard `**.` and a trailing dot.
pub(crate) const LONGEST_NAME: usize = 257;
/// Longest duration in text.
pub(crate) const LONGEST_DURATION: usize = 64;

// IPv4 in IPv6 notation is not a CIDR to the API server; the reader knows what it means.
/// An IPv4 or IPv6 prefix.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "isCIDR(self) || self.lowerAscii().contains(':ffff:')",
    "message": "write an address and a length, such as 1.2.3.0/24 or 2001:db8::/32",
}]))]
pub(super) struct Prefix(#[schemars(length(max = LONGEST_PREFIX))] String);

// Where there can be 160,000 of them, a format, which costs nothing; it lets leading zeros pass.
/// An IPv4 or IPv6 prefix.
#[derive(JsonSchema)]
#[schemars(extend("format" = "cidr"))]
pub(super) struct InnerPrefix(#[schemars(length(max = LONGEST_PREFIX))] String);

/// An IPv4 or IPv6 address.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "isIP(self) || self.lowerAscii().contains(':ffff:')",
    "message": "write an address without length or port, such as 10.96.0.10",
}]))]
pub(super) struct Address(#[schemars(length(max = LONGEST_PREFIX))] String);

// The first check excludes the characters of ASCII that no name has. What is not ASCII is left to the reader, which knows IDNA.
/// A DNS name, with a wildcard at the front or without.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.matches('^([*][*]?[.])?[^\\x00-,/:-@\\\\[-^`{-\\x7f]+$')",
        "message": "write a name such as www.example.com, *.example.com (one label in front) or **.example.com (one or more)",
    },
    {
        "rule": "!self.matches('(^|[.])[0-9]+[.]?$')",
        "message": "this is an address, not a name; use cidrSelector",
    },
]))]
pub(super) struct Name(#[schemars(length(min = 1, max = LONGEST_NAME))] String);

/// A duration.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.matches('^(0|([0-9]+(ms|s|m|h))+)$')",
    "message": "write numbers with a unit (ms, s, m, h), such as 5s or 1h30m",
}]))]
pub(super) struct Duration(#[schemars(length(max = LONGEST_DURATION))] String);

/// The name of an object.
#[derive(JsonSchema)]
pub(super) struct ObjectName(#[schemars(length(min = 1, max = 253))] String);

/// A label's key, with or without a prefix.
#[derive(JsonSchema)]
pub(super) struct LabelKey(#[schemars(length(min = 1, max = 317))] String);

/// A label's value.
#[derive(JsonSchema)]
pub(super) struct LabelValue(#[schemars(length(max = 63))] String);
