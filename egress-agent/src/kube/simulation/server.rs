//! The read side of an API server in memory, which counts what it is asked and what it sends.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// What was asked and sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) requests: u64,
    pub(super) received: u64,
}

#[derive(Default)]
struct State {
    /// By path of the collection.
    objects: BTreeMap<String, Vec<Value>>,
    watches: Vec<Open>,
    /// By verb and resource.
    counts: BTreeMap<(&'static str, String), Count>,
    /// Paths with their queries, as they came.
    requests: Vec<String>,
}

/// A watch that somebody listens to.
struct Open {
    path: String,
    query: String,
    lines: mpsc::UnboundedSender<Bytes>,
}

#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(&request)) }
        });
        Client::new(service, "default")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Has these objects in a collection.
    pub(super) fn hold(&self, path: &str, objects: Vec<Value>) {
        self.state().objects.insert(path.to_owned(), objects);
    }

    /// Tells who watches the collection that an object is another one now.
    pub(super) fn tell(&self, path: &str, object: &Value) {
        self.state().tell(path, "MODIFIED", object);
    }

    /// The bookmark that every watch gets now and then.
    pub(super) fn bookmark(&self, version: u64) {
        let mut state = self.state();
        let paths: BTreeSet<String> = state.watches.iter().map(|open| open.path.clone()).collect();
        let metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        for path in paths {
            state.tell(&path, "BOOKMARK", &json!({"kind": "Any", "apiVersion": "v1", "metadata": metadata}));
        }
    }

    pub(super) fn counts(&self) -> BTreeMap<(&'static str, String), Count> {
        std::mem::take(&mut self.state().counts)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    /// Open watches of a collection.
    pub(super) fn watches(&self, path: &str) -> usize {
        let mut state = self.state();
        state.watches.retain(|open| !open.lines.is_closed());
        state.watches.iter().filter(|open| open.path == path).count()
    }

    fn answer(&self, request: &Request<Body>) -> Response<Answer> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let mut state = self.state();
        state.requests.push(format!("{path}?{query}"));
        if let Some(seconds) = parameter(&query, "timeoutSeconds").filter(|_| query.contains("watch=true")) {
            let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
            state.count("WATCH", &path).requests += 1;
            let (lines, receiver) = mpsc::unbounded_channel();
            state.watches.push(Open { path, query, lines });
            let frames = futures_util::stream::unfold(receiver, move |mut receiver| async move {
                let line = timeout_at(end, receiver.recv()).await.ok().flatten()?;
                Some((Ok::<_, Infallible>(Frame::data(line)), receiver))
            });
            return Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
        }
        let nothing = Vec::new();
        let objects = state.objects.get(&path).unwrap_or(&nothing);
        let found: Vec<&Value> = objects.iter().filter(|object| is_asked_for(object, &query)).collect();
        let mut metadata = json!({"resourceVersion": "1000"});
        let mut items = found.as_slice();
        if parameter(&query, "limit") == Some("1") {
            items = &found[..found.len().min(1)];
            metadata["remainingItemCount"] = json!(found.len() - items.len());
        }
        let body = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string();
        let count = state.count("LIST", &path);
        (count.requests, count.received) = (count.requests + 1, count.received + u64::try_from(body.len()).unwrap());
        Response::new(Full::from(body.into_bytes()).boxed_unsync())
    }
}

impl State {
    fn count(&mut self, verb: &'static str, path: &str) -> &mut Count {
        let resource = path.rsplit('/').next().unwrap().to_owned();
        self.counts.entry((verb, resource)).or_default()
    }

    fn tell(&mut self, path: &str, kind: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        let mut told = 0;
        self.watches.retain(|open| {
            if open.path != path || (kind != "BOOKMARK" && !is_asked_for(object, &open.query)) {
                return !open.lines.is_closed();
            }
            told += 1;
            open.lines.send(line.clone()).is_ok()
        });
        let size = u64::try_from(line.len()).unwrap();
        self.count(if kind == "BOOKMARK" { "BOOKMARK" } else { "EVENT" }, path).received += told * size;
    }
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// As far as the agents' selectors go: slices that a controller keeps are left out, and services are asked for by name.
fn is_asked_for(object: &Value, query: &str) -> bool {
    let Some(labels) = parameter(query, "labelSelector") else { return true };
    let label = |name: &str| object["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
    if labels.contains("%21%3D") || labels.contains("!%3D") {
        return label("endpointslice.kubernetes.io/managed-by") != "endpointslice-controller.k8s.io";
    }
    let names = labels.split_once("in+%28").or_else(|| labels.split_once("in+("));
    names.is_none_or(|(_, names)| {
        let service = label("kubernetes.io/service-name");
        names.trim_end_matches("%29").trim_end_matches(')').split("%2C").any(|name| name == service)
    })
}
