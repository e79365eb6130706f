//! The lines of the three lists, read as the routers' scripts do: blank lines and comments are skipped, and any wrong line stops the
//! router, so it is a problem here.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::http;
use crate::import::build::{EVERYTHING, ports, rule, to_cidr};
use crate::import::ordered::{Ordered, To};
use crate::import::report::Judgement;
use crate::name::NamePattern;
use crate::spec::{Action, EgressPort, EgressRule, Protocol};

/// The lists, by the variables that hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// `EGRESS_DESTINATION`.
    Redirect,
    /// `EGRESS_HTTP_PROXY_DESTINATION`.
    Http,
    /// `EGRESS_DNS_PROXY_DESTINATION`.
    Dns,
}

/// A line that says something.
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// As written.
    pub(super) text: String,
    pub(super) rules: Vec<EgressRule>,
    pub(super) judgement: Judgement,
}

/// A line with which a router does not start.
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

/// Rules of a line, or what is wrong with it and what to write.
pub(super) type Read = Result<(Judgement, Vec<EgressRule>), (String, &'static str)>;

impl List {
    pub(super) fn of(variable: &str) -> Option<Self> {
        match variable {
            "EGRESS_DESTINATION" => Some(Self::Redirect),
            "EGRESS_HTTP_PROXY_DESTINATION" => Some(Self::Http),
            "EGRESS_DNS_PROXY_DESTINATION" => Some(Self::Dns),
            _ => None,
        }
    }

    /// Rules before those of the lines: the DNS proxy reaches IPv4 addresses of its names only.
    pub(super) fn first(self) -> Vec<EgressRule> {
        let all = EVERYTHING.into_iter().filter(|cidr| self == Self::Dns && cidr.addr().is_ipv6());
        all.map(|cidr| rule(Action::Deny, to_cidr(cidr), None)).collect()
    }

    /// The lines with their rules.
    pub(super) fn lines(self, text: &str) -> Result<Vec<Line>, Wrong> {
        let mut lines = Vec::new();
        let (mut redirect, mut dns, mut proxy) = (Redirect::default(), BTreeSet::new(), http::Proxy::default());
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim_matches([' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let read = match self {
                _ if line.contains(['\\', '\t']) => Err(("has a tab or a backslash".to_owned(), "write spaces")),
                Self::Redirect => redirect.line(line),
                Self::Http => proxy.line(line),
                Self::Dns => dns_line(line, &mut dns),
            };
            let (judgement, rules) = read.map_err(|(message, hint)| Wrong { line: number, message, hint })?;
            lines.push(Line { number, text: line.to_owned(), rules, judgement });
        }
        Ok(lines)
    }
}

/// What the earlier lines of a redirect list took.
#[derive(Default)]
struct Redirect {
    /// Local ports, each of one protocol.
    used: Vec<(Protocol, u16)>,
    /// Whether the fallback was written.
    ended: bool,
}

impl Redirect {
    fn line(&mut self, line: &str) -> Read {
        const FORM: &str = "write PORT PROTOCOL ADDRESS [PORT], or at the end one ADDRESS";
        if self.ended {
            return Err((
                "stands after the fallback address, which must be the last line".to_owned(),
                "move the fallback to the end",
            ));
        }
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let (local, named, address, port) = match words.as_slice() {
            [address] => {
                self.ended = true;
                return Ok((Judgement::exact(), self.fallback(ipv4(address)?)));
            }
            [local, named, address] => (local, named, address, local),
            [local, named, address, port] => (local, named, address, port),
            _ => return Err((format!("{line:?} is no destination"), FORM)),
        };
        let of = match *named {
            "tcp" => Protocol::TCP,
            "udp" => Protocol::UDP,
            _ => return Err((format!("{named:?} is neither tcp nor udp"), FORM)),
        };
        let (local, address, port) = (port_number(local)?, ipv4(address)?, port_number(port)?);
        if self.used.iter().any(|(_, used)| *used == local) {
            return Err((format!("the local port {local} is used by an earlier line"), "use every local port once"));
        }
        self.used.push((of, local));
        Ok((Judgement::exact(), vec![rule(Action::Allow, to_cidr(address), Some(vec![ports(of, port, port)]))]))
    }

    /// What goes to no earlier local port goes to `address`, with its own protocol and port.
    fn fallback(&self, address: IpNet) -> Vec<EgressRule> {
        let taken: Vec<EgressPort> = self.used.iter().map(|(of, port)| ports(*of, *port, *port)).collect();
        let deny = (!taken.is_empty()).then(|| rule(Action::Deny, to_cidr(address), Some(taken)));
        deny.into_iter().chain([rule(Action::Allow, to_cidr(address), None)]).collect()
    }
}

fn dns_line(line: &str, used: &mut BTreeSet<u16>) -> Read {
    const FORM: &str = "write PORT ADDRESS-OR-NAME [PORT]";
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let (local, target, port) = match words.as_slice() {
        [local, target] => (local, target, local),
        [local, target, port] => (local, target, port),
        _ => return Err((format!("{line:?} is no destination"), FORM)),
    };
    let (local, port) = (port_number(local)?, port_number(port)?);
    if !used.insert(local) {
        return Err((format!("the port {local} is used by an earlier line"), "use every port once"));
    }
    let of = Some(vec![ports(Protocol::TCP, port, port)]);
    if target.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Ok((Judgement::exact(), vec![rule(Action::Allow, to_cidr(ipv4(target)?), of)]));
    }
    if !target.contains('.') || !is_host(target) {
        return Err((format!("{target:?} is neither an IPv4 address nor a name with a dot"), FORM));
    }
    let to = named(target);
    let (judgement, rule) = Ordered { action: Action::Allow, to, ports: of, judgement: Judgement::exact() }.convert();
    Ok((judgement, rule.into_iter().collect()))
}

/// Letters, digits, dots and hyphens, two or more, a letter or digit first.
pub(super) fn is_host(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        && !text.ends_with('.')
}

/// A name, which rules of ours may or may not have.
pub(super) fn named(text: &str) -> To {
    match NamePattern::parse(text) {
        Ok(name) => To::Name(name),
        Err(error) => To::Unsayable { name: text.to_owned(), why: error.to_string() },
    }
}

fn ipv4(text: &str) -> Result<IpNet, (String, &'static str)> {
    let address: Result<Ipv4Addr, _> = text.parse();
    let wrong = |_| (format!("{text:?} is not an IPv4 address"), "write an address such as 203.0.113.25");
    address.map(|address| IpNet::from(IpAddr::V4(address))).map_err(wrong)
}

fn port_number(text: &str) -> Result<u16, (String, &'static str)> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let number = text.parse().ok().filter(|_| plain);
    number.ok_or_else(|| (format!("{text:?} is not a port"), "write a number from 1 to 65535"))
}
