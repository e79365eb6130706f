//! What pods cost that share policies (P10): kernel memory of ten tables with a pod each, and with a hundred pods each.
//!
//! The maps of endpoints have their size from the start, so what grows is what a pod needs beside its entry there: nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::mix::{self, Mix};
use crate::results::Sharing;
use crate::size::Bench;

const POLICIES: u8 = 10;
const PREFIXES: usize = 1000;
const PODS: [usize; 2] = [10, 1000];

impl Bench<'_> {
    /// Kernel memory that 10 and 1,000 pods take, which share 10 different lists of rules. `None` if the kernel does not say.
    pub(crate) fn sharing(&mut self) -> anyhow::Result<Option<Sharing>> {
        let files = Mix::new(PREFIXES).files;
        let list = |number: u8| {
            let own = mix::update_file(Ipv4Addr::new(198, 51, 100, number));
            files.iter().cloned().chain([own]).collect::<Vec<String>>()
        };
        let tables = (0..POLICIES).map(|number| self.egress.table_of(&list(number)).map(Arc::new));
        let tables = tables.collect::<anyhow::Result<Vec<_>>>()?;
        self.egress.clear()?;
        let Some(before) = self.settled() else { return Ok(None) };
        let mut grown = [0; 2];
        for (grown, pods) in grown.iter_mut().zip(PODS) {
            self.egress.set_pods(&tables, pods)?;
            let Some(now) = self.settled() else { return Ok(None) };
            *grown = now.saturating_sub(before);
        }
        self.egress.clear()?;
        let [few, many] = grown;
        Ok(Some(Sharing { policies: POLICIES.into(), prefixes: PREFIXES, pods: PODS, few, many }))
    }
}
