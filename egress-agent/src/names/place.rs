//! Places in the kernel's form: keys and ids of the trie of names.

use std::collections::BTreeMap;

use egress_common::names::{NameEntry, NameKey};
use egress_policy::places::{Depth, Place};

/// The depth of a name with so many labels more than its suffix.
pub(crate) const fn depth(labels: usize) -> Depth {
    match labels {
        0 => Depth::Exact,
        1 => Depth::One,
        _ => Depth::More,
    }
}

/// A place's id in the entry of its suffix.
pub(crate) const fn id(entry: &NameEntry, depth: Depth) -> u32 {
    match depth {
        Depth::Exact => entry.exact,
        Depth::One => entry.one,
        Depth::More => entry.more,
    }
}

/// As [`id`], to be written.
pub(crate) const fn id_mut(entry: &mut NameEntry, depth: Depth) -> &mut u32 {
    match depth {
        Depth::Exact => &mut entry.exact,
        Depth::One => &mut entry.one,
        Depth::More => &mut entry.more,
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

/// What each id of the trie means.
pub(crate) fn places(trie: &[(NameKey, NameEntry)]) -> BTreeMap<u32, String> {
    let mut places = BTreeMap::new();
    for (key, entry) in trie {
        let Some(suffix) = suffix(key) else { continue };
        for depth in Depth::ALL {
            let id = id(entry, depth);
            if id != 0 {
                places.insert(id, Place { suffix: suffix.clone(), depth }.to_string());
            }
        }
    }
    places
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
    fn an_id_is_read_where_it_is_written() {
        for at in Depth::ALL {
            let mut entry = NameEntry::default();
            *id_mut(&mut entry, at) = 7;
            assert_eq!(Depth::ALL.map(|depth| id(&entry, depth) == 7), Depth::ALL.map(|depth| depth == at));
            assert_eq!(entry.id([0, 1, 5][at as usize]), 7);
        }
    }
}
