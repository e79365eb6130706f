//! Addresses that names share whose rules differ: what is allowed to one name of a CDN is then allowed to, or refused for, the other too.
//!
//! The kernel sees addresses, not names, so both rules count for both names and the one that comes first decides (§5.9). That is said
//! once for each pair of names, because nobody sees it in the policies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::directory::Directory;
use super::lifetime::Moment;

/// Pairs that are told of.
const MOST: usize = 100;

/// Whether some table allows what the first name id stands for and refuses the second, and whose table it is, for people.
pub(crate) type Differs = dyn Fn(u32, u32) -> Option<String> + Send + Sync;

/// A sentence for each pair of names.
pub(crate) fn warnings(directory: &Directory, differs: &Differs, now: Moment) -> BTreeSet<String> {
    let mut asked: HashMap<(u32, u32), Option<String>> = HashMap::new();
    let mut pairs: BTreeMap<(Arc<str>, Arc<str>), (IpAddr, String)> = BTreeMap::new();
    for (address, names) in directory.known.addresses() {
        let of_address: Vec<(&Arc<str>, u32)> = names
            .iter()
            .filter(|name| is_live(directory, name, address, now))
            .filter_map(|name| Some((name, directory.registry.id_of(name)?)))
            .collect();
        for (allowed, one) in &of_address {
            for (refused, other) in of_address.iter().filter(|(_, other)| other != one) {
                let whose = asked.entry((*one, *other)).or_insert_with(|| differs(*one, *other));
                let Some(whose) = whose else { continue };
                let pair = (Arc::clone(allowed), Arc::clone(refused));
                // The lowest address, so that the sentence stays the same.
                let told = pairs.entry(pair).or_insert_with(|| (address, whose.clone()));
                told.0 = told.0.min(address);
            }
        }
    }
    let sentence = |((allowed, refused), (address, whose)): ((Arc<str>, Arc<str>), (IpAddr, String))| {
        format!(
            "{allowed}, which {whose} may reach, and {refused}, which it may not, share addresses such as {address}: \
             there the rule that comes first decides for both names"
        )
    };
    pairs.into_iter().take(MOST).map(sentence).collect()
}

fn is_live(directory: &Directory, name: &str, address: IpAddr, now: Moment) -> bool {
    directory.known.name(name).is_some_and(|name| name.addresses.get(&address).is_some_and(|held| now < held.end))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use egress_policy::name::NamePattern;

    use super::*;
    use crate::names::Shared;
    use crate::names::answer::Found;
    use crate::names::known::Source;
    use crate::names::lifetime::Lifetimes;
    use crate::names::registry::{Limits, Registry};

    fn directory(answers: &[(&str, &str)]) -> Shared {
        let mut registry = Registry::new(Limits::default());
        let patterns = ["good.com", "bad.com", "*.cdn.com"].map(|text| NamePattern::parse(text).unwrap());
        registry.update(&patterns.iter().collect(), Lifetimes::default(), Duration::ZERO);
        let shared = Shared::new(registry);
        let mut directory = shared.lock();
        for (name, address) in answers {
            let id = directory.registry.id_of(name).unwrap();
            let found = [Found { address: address.parse().unwrap(), ttl: 60 }];
            directory.known.answered(name, (id, Source::Learned), &found, Lifetimes::default(), Duration::ZERO);
        }
        drop(directory);
        shared
    }

    /// Refuses bad.com, allows the others.
    fn told(shared: &Shared, now: u64) -> Vec<String> {
        let directory = shared.lock();
        let bad = directory.registry.id_of("bad.com").unwrap();
        let differs = move |one, other| (one != bad && other == bad).then(|| "shop/web".to_owned());
        warnings(&directory, &differs, Duration::from_secs(now)).into_iter().collect()
    }

    #[test]
    fn a_pair_is_told_once_however_many_addresses_it_shares() {
        let shared = directory(&[
            ("good.com", "192.0.2.2"),
            ("bad.com", "192.0.2.2"),
            ("good.com", "192.0.2.1"),
            ("bad.com", "192.0.2.1"),
            ("x.cdn.com", "2001:db8::1"),
            ("bad.com", "2001:db8::1"),
        ]);
        let warnings = told(&shared, 1);
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].starts_with("good.com, which shop/web may reach, and bad.com, which it may not"),
            "{warnings:?}"
        );
        assert!(warnings[0].contains("192.0.2.1:") && warnings[1].contains("2001:db8::1:"), "{warnings:?}");
        assert_eq!(told(&shared, 95), [""; 0]);
    }

    #[test]
    fn names_that_are_treated_alike_or_share_nothing_are_not_told() {
        let shared = directory(&[
            ("good.com", "192.0.2.1"),
            ("x.cdn.com", "192.0.2.1"),
            ("y.cdn.com", "192.0.2.1"),
            ("bad.com", "192.0.2.2"),
        ]);
        assert_eq!(told(&shared, 1), [""; 0]);
    }
}
