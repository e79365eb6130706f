//! The answer of `why` for a name: that for each address which the kernel holds for it. Nothing is resolved here: what counts is what the
//! node has polled and learned.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::IpAddr;

use serde::Serialize;

use crate::cli::Failure;
use crate::destination::NamedDestination;
use crate::dump::NameView;
use crate::output::Answer;
use crate::pods::PodName;

use super::view::Why;

const VERSION: u32 = 1;

/// A name and the verdict at each of its addresses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WhyName {
    version: u32,
    pod: String,
    to: NamedDestination,
    /// `allow`, `deny`, or `differs` between the addresses or ports.
    verdict: &'static str,
    addresses: Vec<Why>,
}

impl WhyName {
    /// `answers` are those of the name's addresses.
    pub(super) fn new(pod: &PodName, to: &NamedDestination, answers: Vec<Why>) -> Self {
        let verdict = match answers.iter().filter(|why| why.allows()).count() {
            0 if answers.iter().all(|why| why.verdict() == "deny") => "deny",
            allowed if allowed == answers.len() => "allow",
            _ => "differs",
        };
        Self { version: VERSION, pod: pod.to_string(), to: to.clone(), verdict, addresses: answers }
    }

    /// Whether it passes at every address.
    pub(super) fn allows(&self) -> bool {
        self.verdict == "allow"
    }
}

impl Answer for WhyName {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        let Self { pod, to, verdict, addresses, .. } = self;
        let number = addresses.len();
        let known = if number == 1 {
            "the 1 address that is known".to_owned()
        } else {
            format!("the {number} addresses that are known")
        };
        writeln!(out, "{pod} to {to}: {verdict} at {known}")?;
        for why in addresses {
            writeln!(out)?;
            why.text(out, colours)?;
        }
        Ok(())
    }
}

/// The live addresses of a name, ascending, among those that the kernel holds.
pub(super) fn addresses(held: &[NameView], name: &str) -> Vec<IpAddr> {
    // Addresses of a place that is this one name are the name's, also where the agent has not said so.
    let of_name = |view: &&NameView| view.name == name || view.place.as_deref() == Some(name);
    let found: BTreeSet<IpAddr> =
        held.iter().filter(of_name).flat_map(|view| view.addresses.iter().map(|known| known.address)).collect();
    found.into_iter().collect()
}

/// What to say of a name without an address.
pub(super) fn unknown(to: &NamedDestination) -> Failure {
    let name = &to.name;
    Failure::negative(format!(
        "no live address of {name} is known on this node: no rule is about the name, or no pod has looked it up lately \
         (`egress-agent dump names` has those that are known); ask for the address that the pod tried, which `egress-agent monitor` shows"
    ))
}
