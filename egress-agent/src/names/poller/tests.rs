//! The thread against name servers on this machine.

mod server;

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant as StdInstant;

use egress_common::dns::Answer;
use egress_policy::name::NamePattern;
use hickory_resolver::proto::op::{Message, ResponseCode};

use crate::datapath::DatapathError;
use crate::datapath::Swept;
use crate::names::answer::Family;
use crate::names::lifetime::Lifetimes;
use crate::names::registry::{Limits, Registry};
use crate::names::snapshot::Snapshot;

use server::{Server, a, aaaa, answer, cname, dead, fail, soa};

use super::*;

const DEADLINE: Duration = Duration::from_mins(1);
/// Quick enough for a test.
const QUICK: Lifetimes =
    Lifetimes { min: Duration::from_secs(1), max: Duration::from_hours(1), grace: Duration::from_secs(10) };

/// What the kernel was told: id, address, TTL.
type Told = Arc<Mutex<Vec<(u32, IpAddr, u32)>>>;

#[derive(Clone, Default)]
struct Kernel {
    told: Told,
    broken: Arc<AtomicUsize>,
    swept: Arc<AtomicUsize>,
}

impl NameMaps for Kernel {
    fn learn(&mut self, id: u32, answers: &[Answer]) -> Result<usize, DatapathError> {
        if self.broken.load(Ordering::SeqCst) > 0 {
            self.broken.fetch_sub(1, Ordering::SeqCst);
            return Err(DatapathError::Syscall { call: "learn", source: io::Error::other("full") });
        }
        let told = answers.iter().map(|answer| (id, crate::events::address(answer.address), answer.ttl));
        self.told.lock().unwrap().extend(told);
        Ok(answers.len())
    }

    fn sweep(&mut self, _: Moment) -> Result<Swept, DatapathError> {
        self.swept.fetch_add(1, Ordering::SeqCst);
        Ok(Swept::default())
    }
}

/// A running thread and what it sees.
struct Lab {
    kernel: Kernel,
    directory: Shared,
    poller: Poller,
    folder: tempfile::TempDir,
    changes: Arc<AtomicUsize>,
}

impl Lab {
    /// Follows the exact ones of the patterns.
    fn new(patterns: &[&str], servers: &[SocketAddr], lifetimes: Lifetimes) -> Self {
        let directory = Shared::new(Registry::new(Limits::default()));
        let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
        let changes: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&changes);
        let mut setup = Setup::new(directory.clone(), kernel.clone(), None, folder.path().to_path_buf());
        setup.timeout = Duration::from_secs(2);
        setup.problems_changed = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let (poller, _) = Poller::start(setup).unwrap();
        let lab = Self { kernel, directory, poller, folder, changes };
        lab.follow(patterns, servers, lifetimes);
        lab
    }

    fn follow(&self, patterns: &[&str], servers: &[SocketAddr], lifetimes: Lifetimes) {
        let parsed: Vec<NamePattern> = patterns.iter().map(|text| NamePattern::parse(text).unwrap()).collect();
        self.directory.lock().registry.update(&parsed.iter().collect(), lifetimes, now());
        let exact = patterns.iter().filter(|text| !text.starts_with('*'));
        self.poller.follow(Follow {
            names: exact.map(|text| Arc::from(*text)).collect(),
            resolvers: servers.to_vec(),
            bounds: Bounds { lifetimes, internal: Some(vec!["10.0.0.0/8".parse().unwrap()]) },
            differs: None,
        });
    }

    fn id(&self, name: &str) -> u32 {
        self.directory.lock().registry.id_of(name).unwrap()
    }

    /// Addresses that the kernel was told of, in order.
    fn told(&self) -> Vec<String> {
        self.kernel.told.lock().unwrap().iter().map(|(_, address, _)| address.to_string()).collect()
    }

    fn problems(&self) -> Vec<String> {
        self.directory.lock().problems(now()).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn wait(&self, what: &str, mut question: impl FnMut(&Self) -> bool) {
        let start = StdInstant::now();
        while !question(self) {
            assert!(start.elapsed() < DEADLINE, "{what}: {:?}, told {:?}", self.problems(), self.told());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn both_families_reach_the_kernel_under_the_id_of_the_name() {
    let server = Server::start(|query, _| match query.queries[0].query_type() {
        kind if kind == Family::V4.record_type() => {
            answer(query, &[a("a.test.", 300, "192.0.2.1"), a("a.test.", 9, "10.0.0.1")])
        }
        _ => answer(query, &[aaaa("a.test.", 300, "2001:db8::1")]),
    });
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("both", |lab| lab.told().len() == 2);
    let mut told = lab.kernel.told.lock().unwrap().clone();
    told.sort();
    let id = lab.id("a.test");
    // The internal address is not stored (§5.6).
    assert_eq!(told, [(id, "192.0.2.1".parse().unwrap(), 300), (id, "2001:db8::1".parse().unwrap(), 300)]);
    assert_eq!(lab.directory.lock().figures.internal, 1);
    let asked: BTreeSet<String> = server.questions().into_iter().collect();
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), ["a.test. A", "a.test. AAAA"]);
    // The snapshot tells the same.
    lab.wait("names.json", |lab| {
        Snapshot::read(lab.folder.path()).is_some_and(|snapshot| {
            snapshot.names.len() == 1 && snapshot.names[0].addresses.len() == 2 && snapshot.names[0].lookups.len() == 2
        })
    });
}

#[test]
fn ttl_zero_is_asked_again_after_the_minimum() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |query, _| {
        let last = count.fetch_add(1, Ordering::SeqCst) % 200 + 1;
        answer(query, &[a("a.test.", 0, &format!("192.0.2.{last}"))])
    });
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("three answers", |lab| lab.told().len() >= 3);
    let told = lab.told();
    assert!(told[0] != told[1] && told[1] != told[2], "{told:?}");
    assert_eq!(lab.directory.lock().known.name("a.test").unwrap().live(now()).count(), told.len());
}

#[test]
fn a_failing_start_is_tried_again_until_there_is_an_answer_and_is_a_problem_meanwhile() {
    let broken = Arc::new(AtomicUsize::new(1));
    let seen = Arc::clone(&broken);
    let server = Server::start(move |query, _| match seen.load(Ordering::SeqCst) {
        0 => answer(query, &[a("a.test.", 300, "192.0.2.1")]),
        _ => fail(query, ResponseCode::ServFail),
    });
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("a problem", |lab| lab.changes.load(Ordering::SeqCst) > 0 && !lab.problems().is_empty());
    assert!(
        lab.problems()[0].contains("Server Failure") && lab.problems()[0].contains("has no address"),
        "{:?}",
        lab.problems()
    );
    assert_eq!(lab.told(), [""; 0]);
    broken.store(0, Ordering::SeqCst);
    lab.wait("the answer", |lab| lab.told() == ["192.0.2.1"]);
    lab.wait("no problem", |lab| lab.problems().is_empty());
}

#[test]
fn a_failing_name_keeps_its_addresses_and_gets_new_ones_when_the_server_is_back() {
    let step = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&step);
    let server = Server::start(move |query, _| match seen.load(Ordering::SeqCst) {
        0 => answer(query, &[a("a.test.", 0, "192.0.2.1")]),
        1 => fail(query, ResponseCode::ServFail),
        _ => answer(query, &[a("a.test.", 0, "192.0.2.2")]),
    });
    let lifetimes = Lifetimes { grace: Duration::from_secs(5), ..QUICK };
    let lab = Lab::new(&["a.test"], &[server.address()], lifetimes);
    lab.wait("an address", |lab| lab.told() == ["192.0.2.1"]);
    step.store(1, Ordering::SeqCst);
    let since = StdInstant::now();
    // Longer than it would live without answers.
    while since.elapsed() < Duration::from_secs(9) {
        assert!(lab.directory.lock().known.name("a.test").unwrap().live(now()).next().is_some());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(lab.told().len() >= 2 && lab.told().iter().all(|address| address == "192.0.2.1"), "{:?}", lab.told());
    step.store(2, Ordering::SeqCst);
    lab.wait("the new address", |lab| lab.told().contains(&"192.0.2.2".to_owned()));
}

#[test]
fn a_name_that_does_not_exist_is_told_so_and_asked_again_by_its_negative_ttl() {
    let exists = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&exists);
    let server = Server::start(move |query, _| match seen.load(Ordering::SeqCst) {
        0 => soa(query, ResponseCode::NXDomain, 1),
        _ => answer(query, &[a("a.test.", 300, "192.0.2.1")]),
    });
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("NXDOMAIN", |lab| lab.problems().first().is_some_and(|problem| problem.contains("NXDOMAIN")));
    assert_eq!(lab.told(), [""; 0]);
    exists.store(1, Ordering::SeqCst);
    lab.wait("the address", |lab| lab.told() == ["192.0.2.1"]);
}

#[test]
fn a_truncated_answer_is_asked_for_over_tcp_and_a_thousand_addresses_and_more_arrive() {
    let many: Vec<String> = (0..1200).map(|n| format!("198.18.{}.{}", n / 256, n % 256)).collect();
    let expected: BTreeSet<String> = many.iter().cloned().collect();
    let server = Server::start(move |query, tcp| {
        if !tcp {
            let mut message = Message::from_vec(&answer(query, &[]).unwrap()).unwrap();
            message.metadata.truncation = true;
            return Some(message.to_vec().unwrap());
        }
        if query.queries[0].query_type() == Family::V6.record_type() {
            return answer(query, &[]);
        }
        answer(query, &many.iter().map(|address| a("a.test.", 300, address)).collect::<Vec<_>>())
    });
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("all", |lab| lab.told().into_iter().collect::<BTreeSet<_>>() == expected);
}

#[test]
fn a_chain_of_cnames_belongs_to_the_question_and_what_is_beside_it_does_not() {
    let server = Server::start(|query, _| {
        answer(
            query,
            &[
                cname("a.test.", 300, "b.test."),
                cname("b.test.", 2, "c.test."),
                a("c.test.", 300, "192.0.2.1"),
                a("other.test.", 300, "192.0.2.66"),
            ],
        )
    });
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("the end of the chain, again when its shortest TTL is over", |lab| lab.told().len() >= 2);
    assert_eq!(lab.told()[..2], ["192.0.2.1", "192.0.2.1"]);
}

#[test]
fn a_dead_server_and_a_failing_one_do_not_hide_a_good_one() {
    let failing = Server::start(|query, _| fail(query, ResponseCode::ServFail));
    let refusing = Server::start(|query, _| fail(query, ResponseCode::Refused));
    let good = Server::start(|query, _| answer(query, &[a("a.test.", 0, "192.0.2.1")]));
    let (silent, _socket) = dead();
    let lab = Lab::new(&["a.test"], &[silent, failing.address(), refusing.address(), good.address()], QUICK);
    lab.wait("an answer", |lab| !lab.told().is_empty());
    lab.wait("no problem", |lab| lab.problems().is_empty());
    // From now on the dead one is asked last, so the others do not wait for it.
    let before = lab.told().len();
    let start = StdInstant::now();
    lab.wait("three more answers", |lab| lab.told().len() >= before + 3);
    assert!(start.elapsed() < DEADLINE);
    assert!(!failing.questions().is_empty() && !refusing.questions().is_empty());
}

#[test]
fn all_servers_dead_is_said_so_and_other_ones_are_asked_at_once() {
    let (silent, _socket) = dead();
    let lab = Lab::new(&["a.test"], &[silent], QUICK);
    lab.wait("silence", |lab| lab.problems().first().is_some_and(|problem| problem.contains("did not answer")));
    let good = Server::start(|query, _| answer(query, &[a("a.test.", 300, "192.0.2.1")]));
    lab.follow(&["a.test"], &[good.address()], QUICK);
    lab.wait("the answer of the new server", |lab| lab.told() == ["192.0.2.1"]);
}

#[test]
fn without_any_server_the_names_wait() {
    let lab = Lab::new(&["a.test"], &[], QUICK);
    lab.wait("no resolver", |lab| {
        lab.problems().first().is_some_and(|problem| problem.contains("no resolver is configured"))
    });
    let good = Server::start(|query, _| answer(query, &[aaaa("a.test.", 300, "2001:db8::1")]));
    lab.follow(&["a.test"], &[good.address()], QUICK);
    lab.wait("an answer", |lab| lab.told() == ["2001:db8::1"]);
}

#[test]
fn a_server_that_does_not_know_edns_is_asked_without() {
    let server = Server::start(|query, _| match &query.edns {
        Some(_) => fail(query, ResponseCode::FormErr),
        None => answer(query, &[a("a.test.", 300, "192.0.2.1")]),
    });
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("an answer", |lab| lab.told() == ["192.0.2.1"]);
}

#[test]
fn a_referral_is_no_answer() {
    let server = Server::start(|query, _| server::referral(query));
    let lab = Lab::new(&["a.test"], &[server.address()], QUICK);
    lab.wait("a problem", |lab| lab.problems().first().is_some_and(|problem| problem.contains("referral")));
}

#[test]
fn a_name_under_a_wildcard_is_asked_for_once_when_somebody_says_so() {
    let server = Server::start(|query, _| answer(query, &[a("x.foo.test.", 1, "192.0.2.1")]));
    let lab = Lab::new(&["*.foo.test", "b.test"], &[server.address()], QUICK);
    drop(lab.poller.orders.send(Order::Ask(Job { name: "x.foo.test".into(), family: Family::V4 })));
    lab.wait("the answer", |lab| lab.told() == ["192.0.2.1"]);
    assert_eq!(lab.kernel.told.lock().unwrap()[0].0, lab.id("x.foo.test"));
    // Of b.test there is no answer here, and it goes on being asked for; x.foo.test does not.
    lab.wait("more questions", |_| {
        server.questions().iter().filter(|question| question.starts_with("b.test.")).count() > 2
    });
    assert_eq!(server.questions().iter().filter(|question| question.starts_with("x.foo")).count(), 1);
}

#[test]
fn an_answer_that_the_kernel_did_not_take_is_asked_for_again() {
    let server = Server::start(|query, _| answer(query, &[a("a.test.", 300, "192.0.2.1")]));
    let lab = Lab::new(&[], &[server.address()], QUICK);
    lab.kernel.broken.store(3, Ordering::SeqCst);
    lab.follow(&["a.test"], &[server.address()], QUICK);
    lab.wait("the answer", |lab| lab.told() == ["192.0.2.1"]);
    assert!(lab.directory.lock().figures.not_stored > 0);
}

#[test]
fn a_name_that_comes_under_another_id_is_stored_under_that_without_being_asked_for() {
    let server = Server::start(|query, _| soa(query, ResponseCode::NXDomain, 3600));
    let lab = Lab::new(&["*.foo.test"], &[server.address()], QUICK);
    let (old, address) = (lab.id("x.foo.test"), "192.0.2.1".parse().unwrap());
    {
        let mut directory = lab.directory.lock();
        let found = [super::super::answer::Found { address, ttl: 600 }];
        directory.known.answered("x.foo.test", (old, Source::Learned), &found, QUICK, now());
    }
    lab.follow(&["*.foo.test", "x.foo.test"], &[server.address()], QUICK);
    lab.wait("the store", |lab| !lab.told().is_empty());
    let (id, stored, ttl) = lab.kernel.told.lock().unwrap()[0];
    assert_eq!((id, stored), (lab.id("x.foo.test"), address));
    assert!(id != old && ttl <= 600 && ttl > 500, "{ttl}");
}

#[test]
fn many_names_are_asked_for_side_by_side_within_the_bound() {
    let names: Vec<String> = (0..300).map(|number| format!("n{number}.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = Server::slow(Duration::from_millis(50), |query, _| answer(query, &[]));
    let _lab = Lab::new(&names, &[server.address()], QUICK);
    let start = StdInstant::now();
    while server.questions().len() < 600 {
        assert!(start.elapsed() < DEADLINE, "{} questions", server.questions().len());
        thread::sleep(Duration::from_millis(5));
    }
    let most = server.most_at_once();
    assert!(most > 8 && most <= MOST, "{most}");
}

#[test]
fn names_that_share_an_address_and_are_treated_differently_are_told_of() {
    let server = Server::start(|query, _| {
        let owner = query.queries[0].name().to_string();
        answer(query, &[a(&owner, 300, "192.0.2.1"), aaaa(&owner, 300, "2001:db8::1")])
    });
    let lab = Lab::new(&[], &[server.address()], QUICK);
    let patterns = ["good.test", "bad.test"].map(|text| NamePattern::parse(text).unwrap());
    lab.directory.lock().update(&patterns.iter().collect(), QUICK, now());
    let bad = lab.id("bad.test");
    lab.poller.follow(Follow {
        names: ["good.test", "bad.test"].map(Arc::from).into(),
        resolvers: vec![server.address()],
        bounds: Bounds { lifetimes: QUICK, ..Bounds::default() },
        differs: Some(Arc::new(move |_, other| (other == bad).then(|| "shop/web".to_owned()))),
    });
    lab.wait("the warning", |lab| {
        lab.directory
            .lock()
            .warnings
            .iter()
            .any(|warning| warning.starts_with("good.test, which shop/web may reach, and bad.test"))
    });
    assert!(lab.changes.load(Ordering::SeqCst) > 0);
}
