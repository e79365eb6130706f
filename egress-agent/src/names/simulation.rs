//! Lookups of names: the schedule of one agent over an hour, for answers of one TTL.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Answered, Found};
use super::lifetime::Moment;
use super::poll::Schedule;
use crate::simulation::{Row, Size, floats, record};

/// Exact names in a policy.
const NAMES: usize = 3;
/// Longest name of a rule here, without the dot at its end.
const NAME: &str = "service-0000.region-1.example.com";
/// IP and UDP, a header, a question with its name, type and class, an OPT record: RFC 768, 791, 1035 §4.1, 6891.
const QUESTION: usize = 28 + 12 + NAME.len() + 2 + 4 + 11;
/// A record with a compressed name and, between both families, 10 bytes of address; four in each answer.
const RECORDS: usize = 4 * (12 + 10);
const TTLS: [u32; 5] = [1, 30, 60, 300, 3600];

/// Lookups that an agent begins in the second half of two hours.
fn lookups(names: usize, ttl: u32) -> usize {
    let names: BTreeSet<Arc<str>> = (0..names).map(|name| format!("service-{name:04}.example.com").into()).collect();
    let mut schedule = Schedule::default();
    let mut now = Moment::ZERO;
    schedule.follow(&names, now);
    let hour = Duration::from_hours(1);
    let answer = Answered::Addresses { found: Vec::<Found>::new(), ttl };
    let mut counted = 0;
    while now < Moment::ZERO + hour + hour {
        let taken = schedule.take(now, usize::MAX);
        counted += if now < Moment::ZERO + hour { 0 } else { taken.len() };
        // Answers take a moment, and come as they are.
        for job in taken {
            schedule.done(&job, Some(&answer), now + Duration::from_millis(20), rand::random());
        }
        now = schedule.next_due().unwrap_or(now).max(now + Duration::from_millis(1));
    }
    counted
}

#[test]
fn lookups_of_names_follow_their_ttl() {
    let cluster = Size::read();
    let mut rows = Vec::new();
    for ttl in TTLS {
        let each = lookups(cluster.policies * NAMES, ttl);
        let requests = floats(each * cluster.nodes) / 3600.0;
        // TTL 1 counts as five seconds; each family of each name is asked for once in its life, a tenth later at most.
        let life = f64::from(ttl.max(5));
        let expected = floats(cluster.policies * NAMES * 2 * cluster.nodes) / life;
        assert!(requests <= expected * 1.001 && requests >= expected / 1.15, "TTL {ttl}: {requests}, not {expected}");
        rows.push(Row {
            phase: "every policy on every node".into(),
            what: format!("names with a TTL of {ttl} s"),
            per_second: true,
            requests,
            sent: requests * floats(QUESTION),
            received: requests * floats(QUESTION + RECORDS),
        });
    }
    record("dns", cluster, &rows);
}
