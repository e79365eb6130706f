//! The places that DNS names fall into: what the rules of a node, or of one pod, can tell apart among all names.
//!
//! Each name after the wildcard of a pattern is a *suffix*. A name belongs to the longest suffix that it ends with, and there to one of
//! three places: the suffix itself, one label in front of it, two and more. A pattern matches every name of a place or none (§5.1), so
//! what holds for a place holds for each of its names. The kernel numbers the places of all rules of the node; a table has only those of
//! its own rules, which are coarser: every place of more patterns lies inside one place of fewer ([`inside`]).

use std::collections::BTreeMap;
use std::fmt;

use egress_common::names::{NameEntry, NameKey};

use crate::name::{NamePattern, Wildcard};

/// How many labels stand in front of a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Depth {
    /// None: the suffix itself.
    Exact,
    /// One.
    One,
    /// Two and more.
    More,
}

impl Depth {
    /// Every depth, in order.
    pub const ALL: [Self; 3] = [Self::Exact, Self::One, Self::More];
}

/// The names that have `suffix` as the longest suffix of some set of patterns, with so many labels in front.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Lower-case A-labels, without a trailing dot.
    pub suffix: String,
    /// The labels in front.
    pub depth: Depth,
}

impl Place {
    /// The place of one name alone (any case, with or without the trailing dot, A-labels).
    pub fn of_name(name: &str) -> Self {
        let name = name.strip_suffix('.').unwrap_or(name);
        Self { suffix: name.to_ascii_lowercase(), depth: Depth::Exact }
    }
}

/// As patterns are written: `www.foo.com`, `*.foo.com`, `**.*.foo.com`. Names of longer suffixes are not among them.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let front = match self.depth {
            Depth::Exact => "",
            Depth::One => "*.",
            Depth::More => "**.*.",
        };
        write!(f, "{front}{}", self.suffix)
    }
}

/// `name` and the suffixes that it ends with, longest first.
pub(crate) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, rest)| rest))
}

/// The place, among those of the suffixes that `known` says yes to, that holds every name of `place`; `None` if no suffix fits. `place`
/// must be one name's, or of a set of patterns that has the known suffixes among its own.
pub(crate) fn inside(place: &Place, known: impl Fn(&str) -> bool) -> Option<Place> {
    let (labels, suffix) = (0_usize..).zip(suffixes(&place.suffix)).find(|(_, suffix)| known(suffix))?;
    let depth = match (labels, place.depth) {
        (0, depth) => depth,
        (1, Depth::Exact) => Depth::One,
        _ => Depth::More,
    };
    Some(Place { suffix: suffix.to_owned(), depth })
}

/// Which wildcards the patterns of one suffix have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wildcards {
    exact: bool,
    one_label: bool,
    any_depth: bool,
}

/// The places of a set of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    suffixes: BTreeMap<String, Wildcards>,
}

impl<'p> FromIterator<&'p NamePattern> for Places {
    fn from_iter<I: IntoIterator<Item = &'p NamePattern>>(patterns: I) -> Self {
        let mut places = Self::default();
        for pattern in patterns {
            places.insert(pattern);
        }
        places
    }
}

impl Places {
    /// Adds a pattern.
    pub fn insert(&mut self, pattern: &NamePattern) {
        let wildcards = self.suffixes.entry(pattern.name.clone()).or_default();
        match pattern.wildcard {
            Wildcard::Exact => wildcards.exact = true,
            Wildcard::OneLabel => wildcards.one_label = true,
            Wildcard::AnyDepth => wildcards.any_depth = true,
        }
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.suffixes.is_empty()
    }

    /// Number of suffixes: entries that the kernel's trie of names needs.
    pub fn len(&self) -> usize {
        self.suffixes.len()
    }

    /// The place of this set that holds every name of `place`, which is one name's or of a set that has all of these patterns. `None`
    /// if no pattern matches those names.
    pub fn place_of(&self, place: &Place) -> Option<Place> {
        inside(place, |suffix| self.suffixes.contains_key(suffix)).filter(|own| !self.patterns(own).is_empty())
    }

    /// The patterns that match every name of `place`, which is one of this set; no other pattern matches any of them. Longest suffix
    /// first.
    pub fn patterns(&self, place: &Place) -> Vec<NamePattern> {
        let mut patterns = Vec::new();
        for (labels, suffix) in (0_usize..).zip(suffixes(&place.suffix)) {
            let Some(wildcards) = self.suffixes.get(suffix) else { continue };
            for wildcard in matching(labels, place.depth) {
                let present = match wildcard {
                    Wildcard::Exact => wildcards.exact,
                    Wildcard::OneLabel => wildcards.one_label,
                    Wildcard::AnyDepth => wildcards.any_depth,
                };
                if present {
                    patterns.push(NamePattern { wildcard: *wildcard, name: suffix.to_owned() });
                }
            }
        }
        patterns
    }

    /// Every place whose names some pattern matches, in order.
    pub fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        let of_suffix = |suffix: &String| Depth::ALL.map(|depth| Place { suffix: suffix.clone(), depth });
        self.suffixes.keys().flat_map(of_suffix).filter(|place| !self.patterns(place).is_empty())
    }

    /// What the kernel's trie of names holds for this set: an entry for each suffix, with the ids that `id` gives to the places of
    /// [`Places::iter`], and 0 for the others.
    pub fn entries<'a>(&'a self, id: impl Fn(&Place) -> u32 + 'a) -> impl Iterator<Item = (NameKey, NameEntry)> + 'a {
        self.suffixes.keys().filter_map(move |suffix| {
            let id_at = |depth| {
                let place = Place { suffix: suffix.clone(), depth };
                if self.patterns(&place).is_empty() { 0 } else { id(&place) }
            };
            let labels = u32::try_from(suffix.split('.').count()).unwrap_or(u32::MAX);
            let [exact, one, more] = Depth::ALL.map(id_at);
            // A pattern's name always fits.
            Some((NameKey::new(suffix)?, NameEntry { exact, one, more, labels }))
        })
    }
}

/// The wildcards with which a pattern matches names that have its name as a suffix `labels` above that of their place.
pub(crate) const fn matching(labels: usize, depth: Depth) -> &'static [Wildcard] {
    match (labels, depth) {
        (0, Depth::Exact) => &[Wildcard::Exact],
        (0, Depth::One) | (1, Depth::Exact) => &[Wildcard::OneLabel, Wildcard::AnyDepth],
        _ => &[Wildcard::AnyDepth],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(patterns: &[&str]) -> Places {
        patterns.iter().map(|text| NamePattern::parse(text).unwrap()).collect::<Vec<_>>().iter().collect()
    }

    fn place(suffix: &str, depth: Depth) -> Place {
        Place { suffix: suffix.to_owned(), depth }
    }

    #[test]
    fn a_name_belongs_to_its_longest_suffix() {
        let places = places(&["www.foo.com", "*.foo.com", "**.com"]);
        for (name, expected) in [
            ("WWW.foo.com.", Some(place("www.foo.com", Depth::Exact))),
            ("x.www.foo.com", Some(place("www.foo.com", Depth::One))),
            ("a.b.www.foo.com", Some(place("www.foo.com", Depth::More))),
            ("mail.foo.com", Some(place("foo.com", Depth::One))),
            ("a.b.foo.com", Some(place("foo.com", Depth::More))),
            ("foo.com", Some(place("foo.com", Depth::Exact))),
            ("bar.com", Some(place("com", Depth::One))),
            ("afoo.com", Some(place("com", Depth::One))),
            ("com", None),
            ("foo.org", None),
        ] {
            assert_eq!(places.place_of(&Place::of_name(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_patterns_of_a_place_are_those_that_match_each_of_its_names() {
        let all = ["a.foo.com", "*.a.foo.com", "*.foo.com", "**.foo.com", "foo.com", "**.b.foo.com", "*.com", "**.com"];
        let places = places(&all);
        let names = [
            "foo.com",
            "a.foo.com",
            "b.foo.com",
            "x.foo.com",
            "x.a.foo.com",
            "y.x.a.foo.com",
            "x.b.foo.com",
            "z.y.x.b.foo.com",
            "x.y.foo.com",
            "com",
            "x.com",
            "x.y.com",
            "x.org",
        ];
        for name in names {
            let place = places.place_of(&Place::of_name(name));
            let mut found: Vec<String> =
                place.iter().flat_map(|place| places.patterns(place)).map(|pattern| pattern.to_string()).collect();
            let mut expected: Vec<String> = all
                .iter()
                .filter(|text| NamePattern::parse(text).unwrap().matches(name))
                .map(ToString::to_string)
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn every_place_of_more_patterns_lies_in_one_place_of_fewer() {
        let few = places(&["**.com", "*.foo.com"]);
        let many = places(&["**.com", "*.foo.com", "a.foo.com", "**.b.a.foo.com", "x.org"]);
        for (of_many, of_few) in [
            (place("a.foo.com", Depth::Exact), Some(place("foo.com", Depth::One))),
            (place("a.foo.com", Depth::One), Some(place("foo.com", Depth::More))),
            (place("b.a.foo.com", Depth::Exact), Some(place("foo.com", Depth::More))),
            (place("foo.com", Depth::One), Some(place("foo.com", Depth::One))),
            (place("x.org", Depth::Exact), None),
        ] {
            assert_eq!(few.place_of(&of_many), of_few, "{of_many}");
            assert_eq!(many.place_of(&of_many), Some(of_many));
        }
    }

    #[test]
    fn places_are_written_as_patterns() {
        let texts = Depth::ALL.map(|depth| place("foo.com", depth).to_string());
        assert_eq!(texts, ["foo.com", "*.foo.com", "**.*.foo.com"]);
    }

    #[test]
    fn entries_number_only_places_that_patterns_match() {
        let places = places(&["foo.com", "*.bar.com"]);
        assert_eq!(places.iter().collect::<Vec<_>>(), [place("bar.com", Depth::One), place("foo.com", Depth::Exact)]);
        let entries: Vec<(NameKey, NameEntry)> = places.entries(|_| 7).collect();
        let entry = |exact, one| NameEntry { exact, one, more: 0, labels: 2 };
        let key = |name| NameKey::new(name).unwrap();
        assert_eq!(entries, [(key("bar.com"), entry(0, 7)), (key("foo.com"), entry(7, 0))]);
    }
}
