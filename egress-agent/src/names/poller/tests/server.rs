//! A name server on the loopback address, over UDP and TCP on one port, that answers as a test says.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record};

type Script = dyn Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync;

/// A server; its threads live as long as the process, which a test's is not for long.
pub(super) struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    questions: Vec<String>,
    /// Questions being answered, each with its repetitions.
    open: BTreeMap<String, usize>,
    most: usize,
}

impl Server {
    /// `script` gets the query and whether it came over TCP; `None` is silence.
    pub(super) fn start(script: impl Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::slow(Duration::ZERO, script)
    }

    /// The same, which takes its time for each answer.
    pub(super) fn slow(
        pause: Duration,
        script: impl Fn(&Message, bool) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let (log, script): (Arc<Mutex<Log>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let desk = Desk { log: Arc::clone(&log), script, pause };
        let of_udp = desk.clone();
        thread::spawn(move || serve_udp(&udp, &of_udp));
        thread::spawn(move || serve_tcp(&tcp, &desk));
        Self { address, log }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `a.test. AAAA`, for each query.
    pub(super) fn questions(&self) -> Vec<String> {
        self.log.lock().unwrap().questions.clone()
    }

    /// Different questions that were open at the same time.
    pub(super) fn most_at_once(&self) -> usize {
        self.log.lock().unwrap().most
    }
}

#[derive(Clone)]
struct Desk {
    log: Arc<Mutex<Log>>,
    script: Arc<Script>,
    pause: Duration,
}

impl Desk {
    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).unwrap();
        let question = format!("{} {}", query.queries[0].name(), query.queries[0].query_type());
        {
            let mut log = self.log.lock().unwrap();
            log.questions.push(question.clone());
            *log.open.entry(question.clone()).or_default() += 1;
            log.most = log.most.max(log.open.len());
        }
        thread::sleep(self.pause);
        let answer = (self.script)(&query, tcp);
        let mut log = self.log.lock().unwrap();
        *log.open.get_mut(&question).unwrap() -= 1;
        log.open.retain(|_, count| *count > 0);
        answer
    }
}

/// A port that is free for both.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP");
}

/// An address where nobody answers while the socket lives.
pub(super) fn dead() -> (SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    (socket.local_addr().unwrap(), socket)
}

fn serve_udp(socket: &UdpSocket, desk: &Desk) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let (query, desk, socket) = (buffer[..length].to_vec(), desk.clone(), socket.try_clone().unwrap());
        thread::spawn(move || {
            if let Some(answer) = desk.answer(&query, false) {
                let _ = socket.send_to(&answer, from);
            }
        });
    }
}

fn serve_tcp(listener: &TcpListener, desk: &Desk) {
    for stream in listener.incoming() {
        let (stream, desk) = (stream.unwrap(), desk.clone());
        thread::spawn(move || serve_stream(stream, &desk));
    }
}

fn serve_stream(mut stream: TcpStream, desk: &Desk) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query).unwrap();
        if let Some(answer) = desk.answer(&query, true) {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            let _ = stream.write_all(&[&length, &answer[..]].concat());
        }
    }
}

fn reply(query: &Message) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.queries.clone_from(&query.queries);
    message
}

/// The records whose type or owner fits the question's type; CNAMEs always do.
pub(super) fn answer(query: &Message, records: &[Record]) -> Option<Vec<u8>> {
    let mut message = reply(query);
    let kind = query.queries[0].query_type();
    let fits = |record: &&Record| record.record_type() == kind || matches!(record.data, RData::CNAME(_));
    let asked = query.queries[0].name();
    // Names that the test did not think of have no records.
    if records.is_empty() || records.iter().any(|record| record.name == *asked) {
        message.answers.extend(records.iter().filter(fits).cloned());
    }
    message.to_vec().ok()
}

pub(super) fn fail(query: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    let mut message = reply(query);
    message.metadata.response_code = code;
    message.to_vec().ok()
}

/// Nothing, for `ttl` seconds.
pub(super) fn soa(query: &Message, code: ResponseCode, ttl: u32) -> Option<Vec<u8>> {
    let mut message = reply(query);
    message.metadata.response_code = code;
    let soa = SOA::new(name("ns.test."), name("root.test."), 1, 2, 3, 4, ttl);
    message.authorities.push(Record::from_rdata(name("test."), 900, RData::SOA(soa)));
    message.to_vec().ok()
}

/// Ask somebody else.
pub(super) fn referral(query: &Message) -> Option<Vec<u8>> {
    let mut message = reply(query);
    message.authorities.push(Record::from_rdata(name("test."), 900, RData::NS(NS(name("ns.test.")))));
    message.to_vec().ok()
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

pub(super) fn a(owner: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(address.parse().unwrap())))
}

pub(super) fn aaaa(owner: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::AAAA(AAAA(address.parse().unwrap())))
}

pub(super) fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}
