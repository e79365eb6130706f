//! A pod switched between two tables while a sender runs (P8): no packet may meet neither of them.
//!
//! Both tables allow one address, by another rule each, and deny a second one; the default is Deny. A packet that met no table, a
//! half-built one or no program at all would go wrong at one of the two.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::lab::Lab;
use crate::mix::Mix;
use crate::peers::egress::Egress;
use crate::results::Swap;
use crate::rounds::median;

const ALLOWED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Switches `swaps` times between two versions of `size` prefixes.
pub(crate) fn measure(egress: &mut Egress, lab: &Lab, size: usize, swaps: usize) -> anyhow::Result<Swap> {
    let mix = Mix::new(size);
    let version = |number: usize| {
        let mut files = mix.files.clone();
        let mut rules = String::new();
        for _ in 0..number {
            rules.push_str("{type: Allow, to: {cidrSelector: 192.88.99.0/24}}, ");
        }
        files.push(format!(
            "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: swap, namespace: bench}}\nspec: \
             {{priority: 0, egress: [{rules}{{type: Deny, to: {{cidrSelector: {DENIED}/32}}}}, {{type: Allow, to: \
             {{cidrSelector: {ALLOWED}/32}}}}]}}\n"
        ));
        files
    };
    let tables = egress.tables_of([&version(0), &version(1)])?;
    egress.switch(&tables[0])?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(lab, &stop));
        let mut times = Vec::new();
        let mut outcome = Ok(());
        for number in 1..=swaps {
            let started = Instant::now();
            outcome = egress.switch(&tables[number % 2]);
            times.push(started.elapsed().as_secs_f64() * 1e3);
            if outcome.is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let (packets, wrong) = sender.join().map_err(|_| anyhow::anyhow!("the sender died"))??;
        outcome?;
        Ok(Swap { swaps, packets, wrong, switch_ms: median(&times) })
    })
}

fn send(lab: &Lab, stop: &AtomicBool) -> anyhow::Result<(u64, u64)> {
    let (mut packets, mut wrong) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        wrong += u64::from(!lab.passes(ALLOWED)?) + u64::from(lab.passes(DENIED)?);
        packets += 2;
    }
    Ok((packets, wrong))
}
