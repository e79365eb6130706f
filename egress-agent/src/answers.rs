//! A file of DNS answers, for commands that judge without a resolver: which names have which addresses.
//!
//! Two forms: a map in YAML or JSON (`www.example.com: [192.0.2.1, '2001:db8::1']`), or records as zone files and `dig +noall +answer` have
//! them (`www.example.com. 300 IN A 192.0.2.1`). Addresses at the end of a CNAME belong to the name that leads there and not to the
//! target (§5.5). Every answer counts as live, but for addresses that no name can have (§5.6): those have no names here either.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use egress_common::names::is_special;
use egress_policy::model::DnsConfig;
use egress_policy::name::{NamePattern, Wildcard};
use serde::Deserialize;

use crate::cli::Failure;
use crate::policy_files::read_file;

/// CNAMEs that are followed from a name, as resolvers do.
const MAX_CHAIN: usize = 16;

/// Names with their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    names: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Whether every address can have names.
    special: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(IpAddr),
    Several(Vec<IpAddr>),
}

impl Answers {
    /// Reads the file at `path`. What is learned from answers is for `config` to say.
    pub(crate) fn read(path: &Path, config: &DnsConfig) -> Result<Self, Failure> {
        let wrong = |error: String| Failure::usage(format!("{}: {error}", path.display()));
        let text = String::from_utf8(read_file(path)?).map_err(|_| wrong("it is not UTF-8 text".to_owned()))?;
        let answers = Self::parse(&text).map_err(wrong)?;
        Ok(Self { special: config.allow_internal, ..answers })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = || text.lines().zip(1_usize..).map(|(line, number)| (line.split(';').next().unwrap_or(""), number));
        let first = lines().find(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'));
        if first.is_some_and(|(line, _)| Record::read(line).is_ok()) {
            return records(lines());
        }
        let map: BTreeMap<String, Addresses> = serde_saphyr::from_str(text).map_err(|error| {
            format!("it is neither a map of names to addresses nor a list of records (NAME [TTL] [IN] A|AAAA|CNAME DATA): {error}")
        })?;
        let mut answers = Self::default();
        for (name, addresses) in map {
            let addresses = match addresses {
                Addresses::One(address) => vec![address],
                Addresses::Several(addresses) => addresses,
            };
            let live = answers.names.entry(exact(&name)?).or_default();
            live.extend(addresses.iter().map(IpAddr::to_canonical));
        }
        Ok(answers)
    }

    /// The addresses of `name`; what is missing otherwise.
    pub(crate) fn addresses(&self, name: &str) -> Result<&BTreeSet<IpAddr>, String> {
        let missing = || format!("no address of {name} is known; add one to the file of --dns, or write an address");
        self.names.get(name).filter(|addresses| !addresses.is_empty()).ok_or_else(missing)
    }

    /// The addresses with their names, both in order.
    pub(crate) fn by_address(&self) -> BTreeMap<IpAddr, BTreeSet<&str>> {
        let mut by_address: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
        for (name, addresses) in &self.names {
            for address in addresses.iter().filter(|address| self.counts(**address)) {
                by_address.entry(*address).or_default().insert(name);
            }
        }
        by_address
    }

    /// Every name that has `address` (§5.9), in order.
    pub(crate) fn names_of(&self, address: IpAddr) -> Vec<String> {
        let names = self.names.iter().filter(|(_, addresses)| self.counts(address) && addresses.contains(&address));
        names.map(|(name, _)| name.clone()).collect()
    }

    fn counts(&self, address: IpAddr) -> bool {
        let bytes = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        self.special || !is_special(&bytes)
    }
}

/// What one record says of its owner.
enum Record {
    Address(String, IpAddr),
    Cname(String, String),
    /// A record of another type.
    Other,
}

impl Record {
    fn read(line: &str) -> Result<Self, String> {
        let wrong = || "this is no record; write NAME [TTL] [IN] A|AAAA|CNAME DATA".to_owned();
        let mut fields = line.split_whitespace();
        let owner = fields.next().ok_or_else(wrong)?;
        let is_ttl = |field: &&str| field.bytes().all(|byte| byte.is_ascii_digit());
        let mut fields =
            fields.skip_while(is_ttl).skip_while(|field| field.eq_ignore_ascii_case("IN")).skip_while(is_ttl);
        let kind = fields.next().ok_or_else(wrong)?;
        let data = fields.next().ok_or_else(wrong)?;
        match kind.to_ascii_uppercase().as_str() {
            "A" => Ok(Self::Address(exact(owner)?, IpAddr::V4(data.parse().map_err(|_| wrong())?))),
            "AAAA" => Ok(Self::Address(exact(owner)?, IpAddr::V6(data.parse().map_err(|_| wrong())?).to_canonical())),
            "CNAME" => Ok(Self::Cname(exact(owner)?, exact(data)?)),
            kind if kind.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) => Ok(Self::Other),
            _ => Err(wrong()),
        }
    }
}

fn records<'t>(lines: impl Iterator<Item = (&'t str, usize)>) -> Result<Answers, String> {
    let mut addresses: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut targets: BTreeMap<String, String> = BTreeMap::new();
    for (line, number) in lines.filter(|(line, _)| !line.trim().is_empty() && !line.starts_with('#')) {
        match Record::read(line).map_err(|error| format!("line {number}: {error}"))? {
            Record::Address(owner, address) => drop(addresses.entry(owner).or_default().insert(address)),
            Record::Cname(owner, target) => drop(targets.insert(owner, target)),
            Record::Other => {}
        }
    }
    let ends: BTreeSet<&String> = targets.values().collect();
    let asked = addresses.keys().chain(targets.keys()).filter(|name| !ends.contains(name));
    let at_the_end = |name: &String| {
        let chain = std::iter::successors(Some(name), |name| targets.get(*name));
        chain.take(MAX_CHAIN).filter_map(|name| addresses.get(name)).flatten().copied().collect()
    };
    let names = asked.map(|name| (name.clone(), at_the_end(name))).collect();
    Ok(Answers { names, special: false })
}

/// A name without a wildcard, in its one form.
fn exact(name: &str) -> Result<String, String> {
    let pattern = NamePattern::parse(name).map_err(|error| format!("{name:?}: {error}"))?;
    if pattern.wildcard == Wildcard::Exact {
        Ok(pattern.name)
    } else {
        Err(format!("{name:?}: answers are of one name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(answers: &Answers) -> Vec<String> {
        answers.names.iter().map(|(name, addresses)| format!("{name} {addresses:?}")).collect()
    }

    #[test]
    fn a_map_is_read_in_yaml_and_json() {
        let yaml =
            Answers::parse("# answers\nWWW.Foo.com.: [1.2.3.4, '2001:db8::1']\nbar.com: '::ffff:1.2.3.4'\n").unwrap();
        let json = Answers::parse(r#"{"www.foo.com": ["2001:db8::1", "1.2.3.4"], "bar.com": "1.2.3.4"}"#).unwrap();
        assert_eq!(yaml, json);
        assert_eq!(texts(&yaml), ["bar.com {1.2.3.4}", "www.foo.com {1.2.3.4, 2001:db8::1}"]);
        assert_eq!(yaml.names_of("1.2.3.4".parse().unwrap()), ["bar.com", "www.foo.com"]);
        assert!(yaml.addresses("foo.com").is_err());
    }

    #[test]
    fn records_are_read_as_dig_writes_them_and_a_target_is_no_name() {
        let answers = Answers::parse(
            "; <<>> DiG <<>> www.foo.com\nwww.foo.com.\t300\tIN\tCNAME\tcdn.bar.net.\ncdn.bar.net. 60 IN A 192.0.2.1\n\
             cdn.bar.net.\tIN 60\tAAAA 2001:db8::1 ; comment\nfoo.com A 192.0.2.1\nfoo.com. 5 IN MX 10 mail.foo.com.\n",
        );
        assert_eq!(texts(&answers.unwrap()), ["foo.com {192.0.2.1}", "www.foo.com {192.0.2.1, 2001:db8::1}"]);
    }

    // §5.6
    #[test]
    fn a_loopback_address_has_no_name_unless_internal_answers_are_allowed() {
        let answers = Answers::parse("{a.com: [127.0.0.1, '::1', 'fe80::1', 192.0.2.1]}").unwrap();
        let allowed = Answers { special: true, ..answers.clone() };
        for (address, names) in [("127.0.0.1", 0), ("::1", 0), ("fe80::1", 0), ("192.0.2.1", 1)] {
            let address = address.parse().unwrap();
            assert_eq!((answers.names_of(address).len(), allowed.names_of(address).len()), (names, 1), "{address}");
        }
        assert_eq!((answers.by_address().len(), allowed.by_address().len()), (1, 4));
        assert_eq!(answers.addresses("a.com").unwrap().len(), 4, "a pod may still go there");
    }

    #[test]
    fn a_circle_of_cnames_has_no_address() {
        let answers = Answers::parse("a.com CNAME b.com\nb.com CNAME c.com\nc.com CNAME b.com\n").unwrap();
        assert!(answers.addresses("a.com").is_err());
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        for (text, said) in [
            ("a.com A 1.2.3.4\nb.com A nowhere\n", "line 2: this is no record"),
            ("a.com A 1.2.3.4\nb.com\n", "line 2: this is no record"),
            ("a.com: [nowhere]\n", "neither a map of names to addresses nor a list of records"),
            ("'*.a.com': [1.2.3.4]\n", "answers are of one name"),
            ("a..com: [1.2.3.4]\n", "two dots"),
        ] {
            let error = Answers::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
