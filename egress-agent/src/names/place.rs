//! Places in the tree of names: what a name id means, whatever the policies are.

use std::fmt;
use std::sync::Arc;

use egress_common::names::{NameEntry, NameKey};

/// What stands in front of a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Front {
    /// Nothing: the suffix is the name.
    Exact,
    /// One label.
    One,
    /// Two labels and more.
    More,
}

impl Front {
    /// All of them, in the order of [`NameEntry`].
    pub(crate) const ALL: [Self; 3] = [Self::Exact, Self::One, Self::More];

    /// The front of a name with so many labels more than its suffix.
    pub(crate) const fn of(labels: usize) -> Self {
        match labels {
            0 => Self::Exact,
            1 => Self::One,
            _ => Self::More,
        }
    }

    /// This place's id in an entry of the trie.
    pub(crate) const fn id(self, entry: &NameEntry) -> u32 {
        match self {
            Self::Exact => entry.exact,
            Self::One => entry.one,
            Self::More => entry.more,
        }
    }
}

/// The names with this front whose longest suffix among the node's names is this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Lower case, without a trailing dot.
    pub(crate) suffix: Arc<str>,
    pub(crate) front: Front,
}

impl Place {
    pub(crate) fn new(suffix: &str, front: Front) -> Self {
        Self { suffix: suffix.into(), front }
    }
}

/// The place as a pattern of policies would say it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let front = match self.front {
            Front::Exact => "",
            Front::One => "*.",
            Front::More => "**.",
        };
        write!(f, "{front}{}", self.suffix)
    }
}

/// The labels of a name.
pub(crate) fn labels(name: &str) -> usize {
    name.split('.').count()
}

/// The suffix that a key of the trie stands for; `None` if the key is damaged.
pub(crate) fn suffix(key: &NameKey) -> Option<String> {
    let bytes = key.bytes.get(..usize::try_from(key.length).ok()? / 8)?;
    let mut name: Vec<u8> = bytes.iter().rev().map(|&byte| if byte == 0 { b'.' } else { byte }).collect();
    // The length byte of the first label.
    (name.first() == Some(&b'.')).then(|| name.remove(0))?;
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_as_its_name() {
        for name in ["com", "foo.com", "a-b_c.x--y.example.org"] {
            assert_eq!(suffix(&NameKey::new(name).unwrap()).as_deref(), Some(name));
        }
        assert_eq!(suffix(&NameKey { length: 0, bytes: [0; 256] }), None);
        assert_eq!(suffix(&NameKey { length: u32::MAX, bytes: [0; 256] }), None);
    }

    #[test]
    fn places_read_like_patterns() {
        let text = Front::ALL.map(|front| Place::new("foo.com", front).to_string());
        assert_eq!(text, ["foo.com", "*.foo.com", "**.foo.com"]);
    }
}
