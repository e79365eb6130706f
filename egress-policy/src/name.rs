//! DNS names in rules: syntax, the A-label form, wildcards (§5.1).
//!
//! Invariant: a [`NamePattern`] is lower case, without a trailing dot, and every label is a valid A-label or plain label.

use std::fmt;

use crate::spec::LONGEST_NAME;

/// Longest DNS name in text, without the trailing dot (RFC 1035: 255 bytes on the wire).
const MAX_NAME: usize = 253;
/// Longest label.
const MAX_LABEL: usize = 63;

/// What stands in front of the name of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wildcard {
    /// Nothing: the name itself.
    Exact,
    /// `*.`: exactly one label.
    OneLabel,
    /// `**.`: one label or more.
    AnyDepth,
}

/// The `dnsName` of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamePattern {
    /// What may stand in front of `name`.
    pub wildcard: Wildcard,
    /// Lower-case A-labels, without a trailing dot.
    pub name: String,
}

/// Why a `dnsName` is refused. The message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of the name.
    #[error("the name is empty")]
    Empty,
    /// An address was given.
    #[error("{0} is an address, not a name")]
    Address(String),
    /// A `*` somewhere else than at the front.
    #[error("a wildcard may stand only at the front, as `*.` (one label) or `**.` (one or more)")]
    Wildcard,
    /// The whole name is too long.
    #[error("the name has {0} characters, and at most {MAX_NAME} are possible in DNS")]
    TooLong(usize),
    /// One label is wrong.
    #[error("the label {label:?} {reason}")]
    Label {
        /// The label.
        label: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name outside ASCII that IDNA does not allow.
    #[error("{0:?} cannot be converted to its ASCII form (IDNA)")]
    Idna(String),
}

impl NameError {
    /// What to write instead.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "write a name such as www.example.com",
            Self::Address(_) => "use cidrSelector for addresses",
            Self::Wildcard => "write *.example.com or **.example.com",
            Self::TooLong(_) | Self::Label { .. } => {
                "correct the name; labels are at most 63 letters, digits and hyphens, with dots between"
            }
            Self::Idna(_) => "write the name in its ASCII form (xn--…)",
        }
    }
}

impl NamePattern {
    /// Reads a `dnsName`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (wildcard, rest) = if let Some(rest) = text.strip_prefix("**.") {
            (Wildcard::AnyDepth, rest)
        } else if let Some(rest) = text.strip_prefix("*.") {
            (Wildcard::OneLabel, rest)
        } else {
            (Wildcard::Exact, text)
        };
        if rest.contains('*') {
            return Err(NameError::Wildcard);
        }
        // Characters that IDNA drops could make a text of any length a short name.
        let length = text.chars().count();
        if length > LONGEST_NAME {
            return Err(NameError::TooLong(length));
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Err(NameError::Address(text.to_owned()));
        }
        Ok(Self { wildcard, name: ascii_name(rest)? })
    }

    /// Whether `name` (any case, with or without the trailing dot, A-labels) is one that the rule means.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let front = match name.strip_suffix(&self.name) {
            Some("") => return self.wildcard == Wildcard::Exact,
            Some(front) => front.strip_suffix('.'),
            None => None,
        };
        match (self.wildcard, front) {
            (_, None | Some("")) | (Wildcard::Exact, _) => false,
            (Wildcard::OneLabel, Some(front)) => !front.contains('.'),
            (Wildcard::AnyDepth, Some(_)) => true,
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let front = match self.wildcard {
            Wildcard::Exact => "",
            Wildcard::OneLabel => "*.",
            Wildcard::AnyDepth => "**.",
        };
        write!(f, "{front}{}", self.name)
    }
}

fn ascii_name(text: &str) -> Result<String, NameError> {
    let ascii = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        // Before anything is composed: `<` and a stroke through it would become a letter.
        if let Some(label) = text.split('.').find(|label| label.bytes().any(|byte| byte.is_ascii() && !is_plain(byte)))
        {
            return Err(NameError::Label { label: label.to_owned(), reason: WRONG_CHARACTERS });
        }
        idna::domain_to_ascii(text).map_err(|_| NameError::Idna(text.to_owned()))?
    };
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong(name.len()));
    }
    for label in name.split('.') {
        check_label(label).map_err(|reason| NameError::Label { label: label.to_owned(), reason })?;
    }
    // A name whose last label is a number would be read as an address by resolvers (RFC 3696 §2).
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(NameError::Address(name.to_owned()));
    }
    Ok(name.to_owned())
}

const WRONG_CHARACTERS: &str = "may have only letters, digits, hyphens and underscores";

/// Letters, digits, hyphens, and the underscore, which hostnames should not have but real ones do.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// What is wrong with a label, if anything is.
fn check_label(label: &str) -> Result<(), &'static str> {
    if label.is_empty() {
        return Err("is empty: two dots in a row, or one at the front");
    }
    if label.len() > MAX_LABEL {
        return Err("is longer than 63 characters");
    }
    if !label.bytes().all(is_plain) {
        return Err(WRONG_CHARACTERS);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("may not begin or end with a hyphen");
    }
    if label.starts_with("xn--") && idna::domain_to_unicode(label).1.is_err() {
        return Err("is not a valid A-label (IDNA)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(input: &str) -> String {
        NamePattern::parse(input).unwrap().to_string()
    }

    #[test]
    fn names_are_lowered_and_lose_their_trailing_dot() {
        assert_eq!(text("WWW.Foo.COM."), "www.foo.com");
        assert_eq!(text("*.Foo.com"), "*.foo.com");
        assert_eq!(text("**.foo.com."), "**.foo.com");
        assert_eq!(text("localhost"), "localhost");
        assert_eq!(text("r3---sn-4g5e6n.googlevideo.com"), "r3---sn-4g5e6n.googlevideo.com");
        assert_eq!(text("my_bucket.s3.example"), "my_bucket.s3.example");
    }

    #[test]
    fn names_outside_ascii_become_a_labels() {
        assert_eq!(text("Bücher.example"), "xn--bcher-kva.example");
        assert_eq!(text("*.bücher.example"), "*.xn--bcher-kva.example");
    }

    #[test]
    fn wrong_names_are_refused_with_the_reason() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = format!("{}com", "abcdefg.".repeat(32));
        let cases: [(&str, &str); 17] = [
            ("", "empty"),
            (".", "empty"),
            ("*.", "empty"),
            ("*", "wildcard"),
            ("**", "wildcard"),
            ("a.*.com", "wildcard"),
            ("*foo.com", "wildcard"),
            ("*.*.com", "wildcard"),
            ("a..com", "two dots"),
            (".com", "two dots"),
            ("-a.com", "hyphen"),
            ("a b.com", "letters"),
            ("b\u{fc} cher.com", "letters"),
            ("<\u{338}.com", "letters"),
            (&long_label, "63"),
            (&long_name, "253"),
            ("xn--a-ecp.ru.xn--0", "A-label"),
        ];
        for (name, part) in cases {
            let error = NamePattern::parse(name).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn an_address_is_not_a_name() {
        for text in ["1.2.3.4", "2001:db8::1", "1.2.3", "foo.7"] {
            assert!(NamePattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wildcard_does_not_match_the_name_behind_it() {
        // §5.1
        let (exact, one, any) = ("foo.com", "*.foo.com", "**.foo.com");
        for (name, expected) in [
            ("foo.com", [true, false, false]),
            ("FOO.com.", [true, false, false]),
            ("a.foo.com", [false, true, true]),
            ("a.b.foo.com", [false, false, true]),
            ("afoo.com", [false, false, false]),
            (".foo.com", [false, false, false]),
            ("com", [false, false, false]),
        ] {
            let found = [exact, one, any].map(|pattern| NamePattern::parse(pattern).unwrap().matches(name));
            assert_eq!(found, expected, "{name}");
        }
    }
}
