//! The name of a rule list: a hash of everything that its table and its description are made of.

use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::{RankedPeer, RankedRule, RuleList, RuleOrigin};
use crate::model::{Mode, PolicyKind, Tier};

/// Rules whose hash is kept, so that one that changes is not hashed with all others.
const PART: usize = 256;

impl RuleList {
    /// Names the list: lists with the same fingerprint have the same rules from the same places, hence the same table and the same
    /// description.
    pub fn fingerprint(&self) -> [u8; 32] {
        Digests::of(self).fingerprint()
    }
}

/// The hashes of the parts of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    rules: usize,
    parts: Vec<[u8; 32]>,
}

impl Digests {
    pub(crate) fn of(list: &RuleList) -> Self {
        Self { rules: list.rules.len(), parts: list.rules.chunks(PART).map(digest).collect() }
    }

    /// Takes note of other rules at `ranks`, which are sorted.
    pub(crate) fn follow(&mut self, list: &RuleList, ranks: impl Iterator<Item = u32>) {
        let mut parts: Vec<usize> = ranks.map(|rank| usize::try_from(rank).unwrap_or(usize::MAX) / PART).collect();
        parts.dedup();
        for part in parts {
            if let (Some(known), Some(rules)) = (self.parts.get_mut(part), list.rules.chunks(PART).nth(part)) {
                *known = digest(rules);
            }
        }
    }

    /// See [`RuleList::fingerprint`].
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut feed = Feed(Sha256::new_with_prefix(b"egress rule list 4"));
        feed.number(self.rules);
        self.parts.iter().for_each(|part| feed.0.update(part));
        feed.0.finalize().into()
    }
}

fn digest(rules: &[RankedRule]) -> [u8; 32] {
    let mut feed = Feed(Sha256::new());
    for rule in rules {
        feed.rule(rule);
    }
    feed.0.finalize().into()
}

/// Where the number of a policy's rule is seen. The rules of a policy stand together and in order, so that in a list it follows from where
/// they stand: a rule more changes the hash of the part that it is in, and not of all behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbered {
    Here,
    ByPlace,
}

/// Feeds a hash with fields such that different rules give different bytes: every text and list has its length in front.
struct Feed(Sha256);

impl Feed {
    fn number(&mut self, number: usize) {
        self.0.update(u64::try_from(number).unwrap_or(u64::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text);
    }

    fn networks(&mut self, networks: &[IpNet]) {
        self.number(networks.len());
        for network in networks {
            self.0.update([network.max_prefix_len(), network.prefix_len()]);
            match network.addr() {
                IpAddr::V4(address) => self.0.update(address.octets()),
                IpAddr::V6(address) => self.0.update(address.octets()),
            }
        }
    }

    fn rule(&mut self, rule: &RankedRule) {
        if rule.is_vacant() {
            return self.text("vacant");
        }
        self.origin(&rule.origin, Numbered::ByPlace);
        self.text(rule.action.name());
        self.0.update([tier_number(rule.tier), u8::from(rule.mode == Mode::Audit)]);
        self.peer(&rule.peer);
        self.number(rule.ports.ranges().len());
        for range in rule.ports.ranges() {
            self.0.update(range.first.to_le_bytes());
            self.0.update(range.last.to_le_bytes());
        }
    }

    fn origin(&mut self, origin: &RuleOrigin, numbered: Numbered) {
        match origin {
            RuleOrigin::Builtin(builtin) => self.text(builtin.name()),
            RuleOrigin::Service(service) => {
                self.text("service");
                self.text(&service.service);
                self.text(&service.endpoint.to_string());
                self.origin(&service.by, Numbered::Here);
            }
            RuleOrigin::Default => self.text("default"),
            RuleOrigin::Vacant => self.text("vacant"),
            RuleOrigin::Policy { key, number, name } => {
                self.text(key.kind.name());
                self.0.update([u8::from(key.kind == PolicyKind::OpenShiftEgressNetworkPolicy)]);
                self.0.update([u8::from(key.namespace.is_some()), u8::from(name.is_some())]);
                self.text(key.namespace.as_deref().unwrap_or_default());
                self.text(&key.name);
                if numbered == Numbered::Here {
                    self.0.update(number.to_le_bytes());
                }
                self.text(name.as_deref().unwrap_or_default());
            }
        }
    }

    fn peer(&mut self, peer: &RankedPeer) {
        match peer {
            RankedPeer::Any => self.0.update([0]),
            RankedPeer::Networks(networks) => {
                self.0.update([1]);
                self.networks(networks);
            }
            RankedPeer::Cidr { cidr, except } => {
                self.0.update([2]);
                self.networks(std::slice::from_ref(cidr));
                self.networks(except);
            }
            RankedPeer::DnsName(name) => {
                self.0.update([3]);
                self.text(&name.to_string());
            }
            RankedPeer::Nodes { selector, networks } => {
                self.0.update([4]);
                self.text(&selector.to_string());
                self.networks(networks);
            }
        }
    }
}

const fn tier_number(tier: Tier) -> u8 {
    match tier {
        Tier::Builtin => 0,
        Tier::Admin => 1,
        Tier::Namespace => 2,
        Tier::Baseline => 3,
        Tier::Default => 4,
    }
}
