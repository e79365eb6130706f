//! Lines of an HTTP proxy's list, as its script gives them to squid: in order, the first that matches decides, then nothing more is
//! allowed, or everything after a last `*`.
//!
//! squid decides by the name in the request. Rules of ours decide by address, so a name that is allowed opens its addresses to every
//! other name that they have, and a name that is denied closes them.

use ipnet::IpNet;

use super::lines::{Read, is_host, named};
use crate::import::build::{everything, protocol};
use crate::import::ordered::{Ordered, To};
use crate::import::report::{Judgement, NAME_OF_REQUEST, Outcome};
use crate::model::canonical;
use crate::name::Wildcard;
use crate::spec::{Action, EgressRule, Protocol};

const DENIED_NAME: &str = "there the name in the request counts; here the addresses of the name are closed, also to requests with another name";

/// What the earlier lines said.
#[derive(Default)]
pub(super) struct Proxy {
    /// Whether `*` was written.
    ended: bool,
}

impl Proxy {
    pub(super) fn line(&mut self, line: &str) -> Read {
        if self.ended {
            return Err(("stands after *, which must be the last line".to_owned(), "move * to the end"));
        }
        if line == "*" {
            self.ended = true;
            return Ok((Judgement::exact(), everything(Action::Allow, Some(&[protocol(Protocol::TCP)])).collect()));
        }
        let (action, destination) = match line.strip_prefix('!') {
            Some(rest) => (Action::Deny, rest),
            None => (Action::Allow, line),
        };
        let targets = targets(destination)?;
        let mut judgement = Judgement::exact();
        let mut rules: Vec<EgressRule> = Vec::new();
        for to in targets {
            if matches!(&to, To::Name(_)) {
                match action {
                    Action::Deny => judgement.add(Outcome::Narrower, DENIED_NAME),
                    Action::Allow | Action::Pass => judgement.add(Outcome::Wider, NAME_OF_REQUEST),
                }
            }
            let ports = Some(vec![protocol(Protocol::TCP)]);
            let (said, rule) = Ordered { action, to, ports, judgement: Judgement::exact() }.convert();
            judgement.merge(said);
            rules.extend(rule);
        }
        Ok((judgement, rules))
    }
}

/// An address or prefix; a name; a domain, which is the name and everything below it.
fn targets(text: &str) -> Result<Vec<To>, (String, &'static str)> {
    const FORM: &str = "write an address, a prefix, a name, *.name, or at the end *";
    let wrong = || Err((format!("{text:?} is no destination"), FORM));
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return prefix(IpNet::from(address));
    }
    if let Ok(network) = text.parse::<IpNet>() {
        return prefix(network);
    }
    if let Some(domain) = text.strip_prefix("*.") {
        if !is_host(domain) {
            return wrong();
        }
        let below = match named(domain) {
            To::Name(mut name) => {
                name.wildcard = Wildcard::AnyDepth;
                vec![To::Name(name)]
            }
            To::Cidr(_) | To::Nodes(_) | To::Unsayable { .. } | To::Nothing { .. } => Vec::new(),
        };
        return Ok([named(domain)].into_iter().chain(below).collect());
    }
    if is_host(text) { Ok(vec![named(text)]) } else { wrong() }
}

fn prefix(network: IpNet) -> Result<Vec<To>, (String, &'static str)> {
    let masked = network.trunc();
    if canonical(masked) != masked {
        return Err((format!("{network} is IPv4 in IPv6 notation"), "write it as IPv4"));
    }
    Ok(vec![To::Cidr(masked)])
}
