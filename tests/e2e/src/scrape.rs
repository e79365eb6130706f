//! Asks for a page over HTTP, as Prometheus and a kubelet do.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use egress_world::World;

/// The status code and the body of `GET path` from `address`, asked on the node of the world.
pub fn get(world: &World, address: SocketAddr, path: &str) -> (u16, String) {
    world.node().enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("a listener");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
        (status, unchunked(head, body))
    })
}

/// The body without the lengths of its chunks.
fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("the length of a chunk");
        whole.push_str(&after[..length]);
        rest = after.get(length + 2..).unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    whole
}

/// The samples of a scrape: `name{labels}` and value.
#[derive(Clone, Debug)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Scrapes `/metrics`.
    pub fn scrape(world: &World, address: SocketAddr) -> Self {
        let (status, text) = get(world, address, "/metrics");
        assert_eq!(status, 200, "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).map(sample).collect())
    }

    /// The sum of the samples of a metric that have all of these labels, each written `name="value"`.
    pub fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        let fits = |name: &str| {
            let own = name.split('{').next() == Some(metric);
            own && labels.iter().all(|label| name.contains(label))
        };
        self.0.iter().filter(|(name, _)| fits(name)).map(|(_, value)| value).sum()
    }

    /// The names of all metrics.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| name.split('{').next().unwrap_or(name))
    }
}
