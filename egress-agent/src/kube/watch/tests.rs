//! The watch against a server that misbehaves in every way that API servers do: HTTP on the loopback interface, answers in a script.

use std::collections::VecDeque;
use std::sync::Mutex;

use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;
use crate::kube::index::Object;
use crate::kube::resource::{Slices, watched};

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Answer {
    /// A status with a body, and `Retry-After` in seconds.
    Status(u16, &'static str, Option<u32>),
    /// Lines of a watch, which then ends.
    Lines(&'static [&'static str]),
    /// Lines of a watch, after which the connection breaks.
    Broken(&'static [&'static str]),
    /// Lines of a watch, which goes on without saying more.
    Open(&'static [&'static str]),
    /// A body that was compressed.
    Compressed(&'static [u8]),
    /// Nothing at all.
    Silence,
}

/// The requests that came: path with query, the token, and the encodings that are accepted.
type Requests = Arc<Mutex<Vec<[String; 3]>>>;

const EMPTY: &str = r#"{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[]}"#;
const ONE: &str = r#"{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"20"},"items":[{"metadata":{"name":"shop","resourceVersion":"11"}}]}"#;
const ADDED: &str = r#"{"type":"ADDED","object":{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"blog","resourceVersion":"21"}}}"#;
const DELETED: &str = r#"{"type":"DELETED","object":{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"blog","resourceVersion":"22"}}}"#;
const BOOKMARK: &str =
    r#"{"type":"BOOKMARK","object":{"kind":"Namespace","apiVersion":"v1","metadata":{"resourceVersion":"30"}}}"#;
const EXPIRED: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}"#;
const FAILURE: &str =
    r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"no","code":500}"#;

async fn answer(answer: Answer) -> Result<Response<BoxBody<Bytes, std::io::Error>>, std::io::Error> {
    let full = |body: &'static str| Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
    let lines = |lines: &[&str]| Bytes::from(lines.join("\n") + "\n");
    let stream = |first: Bytes, end: Option<std::io::Error>, open: bool| {
        let frames = futures_util::stream::iter([Ok(Frame::data(first))]);
        // What was written before must have left the server by then.
        let end = futures_util::stream::iter(end).then(|end| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(end)
        });
        if open {
            BoxBody::new(StreamBody::new(frames.chain(futures_util::stream::pending())))
        } else {
            BoxBody::new(StreamBody::new(frames.chain(end)))
        }
    };
    let body = match answer {
        Answer::Status(code, body, retry) => {
            let mut response = Response::builder().status(code);
            if let Some(seconds) = retry {
                response = response.header("Retry-After", seconds);
            }
            return response.body(full(body)).map_err(std::io::Error::other);
        }
        Answer::Lines(text) => stream(lines(text), None, false),
        Answer::Broken(text) => stream(lines(text), Some(std::io::ErrorKind::ConnectionReset.into()), false),
        Answer::Open(text) => stream(lines(text), None, true),
        Answer::Compressed(body) => {
            let response = Response::builder().header("Content-Encoding", "gzip");
            let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
            return response.body(body).map_err(std::io::Error::other);
        }
        Answer::Silence => std::future::pending().await,
    };
    Ok(Response::new(body))
}

/// Serves the answers in order; after the last one, watches that stay open and say nothing.
async fn serve(script: Vec<Answer>) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Requests::default();
    let (seen, script) = (Arc::clone(&requests), Arc::new(Mutex::new(VecDeque::from(script))));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
            let service = service_fn(move |request: Request<Incoming>| {
                let header = |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
                let seen_now = [request.uri().to_string(), header("authorization"), header("accept-encoding")];
                seen.lock().unwrap().push(seen_now);
                answer(script.lock().unwrap().pop_front().unwrap_or(Answer::Open(&[])))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (format!("http://{address}"), requests)
}

struct Lab {
    news: mpsc::Receiver<Told>,
    health: Arc<Health>,
    requests: Requests,
}

impl Lab {
    async fn new(kind: &Kind, script: Vec<Answer>) -> Self {
        let (url, requests) = serve(script).await;
        Self::of(kind, kube::Config::new(url.parse().unwrap()), requests)
    }

    fn of(kind: &Kind, config: kube::Config, requests: Requests) -> Self {
        let client = Client::try_from(config).unwrap();
        let watched = watched("node-a", Slices::All).into_iter().find(|watched| watched.kind == *kind).unwrap();
        let (told, news) = mpsc::channel(64);
        let health = Arc::new(Health::default());
        tokio::spawn(follow(client, watched, told, Arc::clone(&health)));
        Self { news, health, requests }
    }

    /// What is told next, as words.
    async fn next(&mut self) -> String {
        let told = timeout(Duration::from_secs(20), self.news.recv()).await.expect("something is told").unwrap();
        match told.1 {
            Change::Begin => "begin".to_owned(),
            Change::Listed(key, decoded) => format!("listed {key}{}", word(&decoded)),
            Change::Done => "done".to_owned(),
            Change::Put(key, decoded) => format!("put {key}{}", word(&decoded)),
            Change::Gone(key) => format!("gone {key}"),
            Change::Absent => "absent".to_owned(),
            Change::Opened => "opened".to_owned(),
            Change::Closed => "closed".to_owned(),
        }
    }

    async fn told(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.next().await, *expected, "requests so far: {:?}", self.requests.lock().unwrap());
        }
    }

    /// The same after any number of listings that did not get anywhere.
    async fn told_at_last(&mut self, expected: &[&str]) {
        let mut first = self.next().await;
        while first == "begin" {
            first = self.next().await;
        }
        assert_eq!(Some(first.as_str()), expected.first().copied());
        self.told(expected.get(1..).unwrap_or_default()).await;
    }

    fn paths(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|[path, ..]| path.clone()).collect()
    }
}

fn word(decoded: &Result<Object, String>) -> &'static str {
    if decoded.is_ok() { "" } else { " unreadable" }
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_the_last_bookmark_without_another_listing() {
    let script = vec![Answer::Status(200, ONE, None), Answer::Lines(&[ADDED, BOOKMARK]), Answer::Open(&[DELETED])];
    let mut lab = Lab::new(&Kind::Namespace, script).await;
    lab.told(&["begin", "listed shop", "done", "put blog", "gone blog"]).await;
    let paths = lab.paths();
    assert!(paths[0].contains("resourceVersion=0"), "listed from the server's memory: {paths:?}");
    assert!(paths[1].contains("watch=true") && paths[1].contains("allowWatchBookmarks=true"), "{paths:?}");
    assert!(paths[2].contains("resourceVersion=30"), "{paths:?}");
    assert_eq!(lab.health.figures()["namespaces"].listings, 1);
}

/// The API server compresses long answers for whoever says that it can read them; the list of a large cluster is one.
#[tokio::test]
async fn listings_may_be_compressed() {
    // `ONE`, by gzip.
    const COMPRESSED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x65\x8c\x3b\x0a\xc3\x30\x10\x05\xef\xf2\x6a\x15\x91\x4b\x9d\x21\xa4\x74\x63\x5c\x2c\xf2\x82\x17\xa3\x0f\x5a\x39\x8d\xd0\xdd\xb3\x5d\x08\x69\xdf\x9b\x99\x81\x4b\xf2\x81\x80\x17\x25\xd6\x4a\x91\x9f\xa2\x1d\x0e\x54\x65\xe5\xa6\x52\xb2\x9d\x6f\x6f\x4b\xe2\x4e\x07\x75\x42\x18\x68\xac\xe5\x6e\x91\xbf\xc8\xf2\xc0\x74\x90\xce\x49\x11\xb6\xf1\x43\x67\x6b\x1b\xa2\x67\xa9\xd6\xf9\x77\xbd\xc7\x9c\xfb\xfc\x00\x9d\xbc\x97\x85\x8c\x00\x00\x00";
    let script = vec![Answer::Compressed(COMPRESSED), Answer::Lines(&[ADDED])];
    let mut lab = Lab::new(&Kind::Namespace, script).await;
    lab.told(&["begin", "listed shop", "done", "put blog"]).await;
    let requests = lab.requests.lock().unwrap().clone();
    assert!(requests[0][2].contains("gzip"), "{requests:?}");
}

#[tokio::test]
async fn an_expired_version_leads_to_another_listing_in_which_what_was_missed_is_seen() {
    let script = vec![Answer::Status(200, EMPTY, None), Answer::Lines(&[EXPIRED]), Answer::Status(200, ONE, None)];
    let mut lab = Lab::new(&Kind::Namespace, script).await;
    lab.told(&["begin", "done", "begin", "listed shop", "done"]).await;
    assert_eq!(lab.health.figures()["namespaces"].listings, 2);
    assert!(lab.health.figures()["namespaces"].up);
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_again_where_it_was() {
    let script = vec![Answer::Status(200, ONE, None), Answer::Broken(&[ADDED]), Answer::Open(&[DELETED])];
    let mut lab = Lab::new(&Kind::Namespace, script).await;
    lab.told(&["begin", "listed shop", "done", "put blog", "gone blog"]).await;
    assert!(lab.paths()[2].contains("resourceVersion=21"), "{:?}", lab.paths());
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let script = vec![Answer::Status(429, FAILURE, Some(2)), Answer::Status(200, ONE, None)];
    let begun = Instant::now();
    let mut lab = Lab::new(&Kind::Namespace, script).await;
    lab.told_at_last(&["listed shop", "done"]).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(lab.health.figures()["namespaces"].errors, 0, "it was no error");
}

#[tokio::test]
async fn errors_are_counted_and_said_and_tried_again_with_pauses() {
    let script =
        vec![Answer::Status(500, FAILURE, None), Answer::Status(500, FAILURE, None), Answer::Status(200, ONE, None)];
    let begun = Instant::now();
    let mut lab = Lab::new(&Kind::Namespace, script).await;
    lab.told_at_last(&["listed shop", "done"]).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "two pauses: {:?}", begun.elapsed());
    let figures = lab.health.figures()["namespaces"].clone();
    assert_eq!((figures.errors, figures.up, figures.synced), (2, true, true));
}

#[tokio::test]
async fn a_token_that_was_replaced_is_used_from_the_file() {
    let (url, requests) = serve(vec![Answer::Status(401, FAILURE, None), Answer::Status(200, ONE, None)]).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "new").unwrap();
    let mut config = kube::Config::new(url.parse().unwrap());
    config.auth_info.token_file = Some(token.path().display().to_string());
    let mut lab = Lab::of(&Kind::Namespace, config, requests);
    while lab.next().await != "done" {}
    let tokens: Vec<String> = lab.requests.lock().unwrap().iter().map(|[_, token, _]| token.clone()).collect();
    assert!(tokens.iter().all(|token| token == "Bearer new"), "{tokens:?}");
    assert_eq!(lab.health.figures()["namespaces"].errors, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_says_nothing_is_given_up_and_asked_again() {
    let script = vec![Answer::Silence, Answer::Status(200, ONE, None)];
    let mut lab = Lab::new(&Kind::Namespace, script).await;
    loop {
        let told = timeout(PATIENCE * 3, lab.news.recv()).await.expect("the listing is begun again").unwrap();
        if matches!(told.1, Change::Done) {
            break;
        }
    }
    assert_eq!(lab.health.figures()["namespaces"].errors, 1);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_does_not_stall_the_others() {
    const LIST: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"20"},"items":[
        {"metadata":{"name":"bad","namespace":"n"},"spec":{"hostNetwork":"perhaps"}},{"metadata":{"name":"good","namespace":"n"}}]}"#;
    let mut lab = Lab::new(&Kind::Pod, vec![Answer::Status(200, LIST, None)]).await;
    lab.told(&["begin", "listed n/bad unreadable", "listed n/good", "done"]).await;
    assert_eq!(lab.health.figures()["pods"].unreadable, 1);
    assert!(lab.paths()[0].contains("fieldSelector=spec.nodeName%3Dnode-a"), "{:?}", lab.paths());
}

#[tokio::test]
async fn a_kind_that_the_cluster_does_not_have_is_absent_where_that_is_fine() {
    let not_found = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"NotFound","code":404}"#;
    let mut lab = Lab::new(&Kind::ServiceCidr, vec![Answer::Status(404, not_found, None)]).await;
    lab.told_at_last(&["absent"]).await;
    let mut needed =
        Lab::new(&Kind::Policy, vec![Answer::Status(404, not_found, None), Answer::Status(200, EMPTY, None)]).await;
    needed.told_at_last(&["done"]).await;
    assert_eq!(needed.health.figures()["egressnetworkpolicies.egress.rs"].errors, 1);
}
