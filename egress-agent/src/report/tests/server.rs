//! An API server in memory, as far as this module needs one: objects with resource versions, apply, merge, replace with a precondition,
//! list and watch; it counts what is asked of it and fails where it is told to.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// Requests of one kind, as metrics would call them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) requests: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Path of the collection, the name that is asked for, and who asked.
    watches: Vec<(String, Option<String>, mpsc::UnboundedSender<Bytes>)>,
    counts: BTreeMap<(String, String), Count>,
    /// Answers for the next requests whose method and path contain these.
    failures: Vec<(Method, String, u16, usize)>,
    /// What somebody else puts at a path just before a request of this method for it is answered.
    surprises: Vec<(Method, String, Value)>,
    /// What the memory of the API server goes on to say of a path.
    frozen: HashMap<String, Value>,
    /// When requests that change something came, and about what.
    writes: Vec<(tokio::time::Instant, String)>,
}

/// Shared by its clients.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Puts an object there, as somebody else would.
    pub(super) fn put(&self, path: &str, object: Value) {
        drop(self.state().put(path, object));
    }

    pub(super) fn remove(&self, path: &str) {
        let mut state = self.state();
        if let Some(object) = state.objects.remove(path) {
            state.tell(path, "DELETED", &object.to_string());
        }
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Objects whose paths begin so.
    pub(super) fn below(&self, prefix: &str) -> Vec<Value> {
        self.state()
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The next `times` requests of `method` whose path contains `part` are answered with `code`.
    pub(super) fn fail(&self, method: Method, part: &str, code: u16, times: usize) {
        self.state().failures.push((method, part.to_owned(), code, times));
    }

    /// The next `times` listings of this collection are answered with `code`.
    pub(super) fn fail_listing(&self, collection: &str, code: u16, times: usize) {
        self.state().failures.push((Method::GET, format!("/{collection}?"), code, times));
    }

    /// Somebody else puts an object there while a request of `method` for it is on its way.
    pub(super) fn surprise(&self, method: Method, path: &str, object: Value) {
        self.state().surprises.push((method, path.to_owned(), object));
    }

    /// Whoever asks the memory of the API server for this object is told what it is now, from now on.
    pub(super) fn freeze(&self, path: &str) {
        let mut state = self.state();
        let object = state.objects[path].clone();
        state.frozen.insert(path.to_owned(), object);
    }

    /// What was asked, by verb and resource, since it was last asked for.
    pub(super) fn counts(&self) -> BTreeMap<(String, String), Count> {
        std::mem::take(&mut self.state().counts)
    }

    /// Writes since they were last asked for.
    pub(super) fn writes(&self) -> Vec<(tokio::time::Instant, String)> {
        std::mem::take(&mut self.state().writes)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let mut state = self.state();
        let kind = (verb(&parts.method, &query).to_owned(), resource(&path));
        let sent = u64::try_from(body.len()).unwrap();
        let count = state.counts.entry(kind.clone()).or_default();
        (count.requests, count.sent) = (count.requests + 1, count.sent + sent);
        if let Some(code) = state.failure(&parts.method, &format!("{path}?")) {
            return failed(code);
        }
        if query.contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel();
            state.watches.push((path, only(&query).map(str::to_owned), sender));
            let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
                Some((Ok::<_, Infallible>(Frame::data(receiver.recv().await?)), receiver))
            });
            return Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
        }
        if parts.method != Method::GET {
            let now = tokio::time::Instant::now();
            state.writes.push((now, format!("{} {path}", parts.method)));
        }
        if let Some(at) = state.surprises.iter().position(|(method, of, _)| *method == parts.method && *of == path) {
            let (_, path, object) = state.surprises.remove(at);
            drop(state.put(&path, object));
        }
        let answer = state.handle(&parts.method, &path, &query, &body);
        match answer {
            Ok(text) => {
                if let Some(count) = state.counts.get_mut(&kind) {
                    count.received += u64::try_from(text.len()).unwrap();
                }
                Response::new(Full::from(text.into_bytes()).boxed_unsync())
            }
            Err(code) => failed(code),
        }
    }
}

fn failed(code: u16) -> Response<Answer> {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code});
    Response::builder().status(code).body(Full::from(status.to_string().into_bytes()).boxed_unsync()).unwrap()
}

fn verb<'m>(method: &'m Method, query: &str) -> &'m str {
    if query.contains("watch=true") { "WATCH" } else { method.as_str() }
}

/// `egressnodestates/status` of a path.
fn resource(path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
    let rest = if rest[0] == "namespaces" && rest.len() > 2 { &rest[2..] } else { rest };
    match rest {
        [plural, _, sub] => format!("{plural}/{sub}"),
        _ => rest[0].to_owned(),
    }
}

/// The name that a field selector asks for.
fn only(query: &str) -> Option<&str> {
    let selector = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"))?;
    Some(selector)
}

fn is_named(path: &str, name: Option<&str>) -> bool {
    name.is_none_or(|name| path.rsplit('/').next() == Some(name))
}

/// Whether `path` is an object of the collection `of`, also of one over all namespaces.
fn belongs(path: &str, of: &str) -> bool {
    let Some((collection, _)) = path.rsplit_once('/') else { return false };
    let without = |path: &str| {
        let mut parts: Vec<&str> = path.split('/').collect();
        if let Some(at) = parts.iter().position(|part| *part == "namespaces")
            && parts.len() > at + 2
        {
            parts.drain(at..at + 2);
        }
        parts.join("/")
    };
    collection == of || without(collection) == of
}

impl State {
    fn failure(&mut self, method: &Method, path: &str) -> Option<u16> {
        let found = self
            .failures
            .iter_mut()
            .find(|(of, part, _, times)| of == method && path.contains(part.as_str()) && *times > 0)?;
        found.3 -= 1;
        Some(found.2)
    }

    /// The text of what is there now.
    fn put(&mut self, path: &str, mut object: Value) -> String {
        self.version += 1;
        let before = self.objects.get(path);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let uid = before.map_or_else(
            || format!("uid-{}", self.version),
            |before| before["metadata"]["uid"].as_str().unwrap().to_owned(),
        );
        if object["metadata"].get("uid").is_none() {
            object["metadata"]["uid"] = json!(uid);
        }
        let same = before.is_some_and(|before| before.get("spec") == object.get("spec"));
        let generation = before.map_or(0, |before| before["metadata"]["generation"].as_i64().unwrap());
        object["metadata"]["generation"] = json!(if same { generation } else { generation + 1 });
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let text = object.to_string();
        self.objects.insert(path.to_owned(), object);
        self.tell(path, kind, &text);
        text
    }

    fn tell(&mut self, path: &str, kind: &str, object: &str) {
        let line = Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"));
        let mut told = 0;
        self.watches.retain(|(of, only, sender)| {
            !belongs(path, of) || !is_named(path, only.as_deref()) || {
                told += 1;
                sender.send(line.clone()).is_ok()
            }
        });
        if told > 0 {
            let count = self.counts.entry(("EVENT".to_owned(), resource(path))).or_default();
            count.requests += told;
            count.received += told * u64::try_from(line.len()).unwrap();
        }
    }

    fn handle(&mut self, method: &Method, path: &str, query: &str, body: &[u8]) -> Result<String, u16> {
        let mut parsed: Value =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(body).map_err(|_| 400_u16)? };
        let (object_path, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let before = self.objects.get(object_path);
        match *method {
            Method::GET if query.contains("resourceVersion=0") && self.frozen.contains_key(path) => {
                Ok(self.frozen[path].to_string())
            }
            Method::GET => before.map(Value::to_string).or_else(|| self.list(path, only(query))).ok_or(404),
            Method::POST => {
                let path = format!("{path}/{}", parsed["metadata"]["name"].as_str().ok_or(422_u16)?);
                if self.objects.contains_key(&path) { Err(409) } else { Ok(self.put(&path, parsed)) }
            }
            Method::PUT => {
                let before = before.ok_or(404_u16)?;
                let wanted = &parsed["metadata"]["resourceVersion"];
                if *wanted == before["metadata"]["resourceVersion"] { Ok(self.put(path, parsed)) } else { Err(409) }
            }
            Method::PATCH if is_status => {
                // What cannot change is not copied: states are large.
                let mut object = json!({});
                for (field, value) in before.ok_or(404_u16)?.as_object().unwrap() {
                    if field != "status" || !query.contains("force=true") {
                        object[field] = value.clone();
                    }
                }
                if query.contains("force=true") {
                    object["status"] = parsed["status"].take();
                } else {
                    merge(&mut object["status"], &parsed["status"]);
                }
                Ok(self.put(object_path, object))
            }
            Method::PATCH => {
                let mut object = before.cloned().unwrap_or_else(|| json!({}));
                let wanted = &parsed["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
                    return Err(409);
                }
                merge(&mut object, &parsed);
                Ok(self.put(path, object))
            }
            _ => Err(405),
        }
    }

    fn list(&self, path: &str, only: Option<&str>) -> Option<String> {
        let collection =
            ["egressnetworkpolicies", "clusteregresspolicies", "egressconfigs", "egressnodestates", "nodes"];
        collection.contains(&path.rsplit('/').next()?).then_some(())?;
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(of, _)| belongs(of, path) && is_named(of, only))
            .map(|(_, object)| object)
            .collect();
        Some(
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
                .to_string(),
        )
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// Paths of objects.
pub(super) fn state_path(node: &str) -> String {
    format!("/apis/egress.rs/v1alpha1/egressnodestates/{node}")
}

pub(super) fn node_path(node: &str) -> String {
    format!("/api/v1/nodes/{node}")
}

pub(super) fn policy_path(namespace: &str, name: &str) -> String {
    format!("/apis/egress.rs/v1alpha1/namespaces/{namespace}/egressnetworkpolicies/{name}")
}

pub(super) const LEASE_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/egress-system/leases/egress-status-leader";

/// A Node that is ready.
pub(super) fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

/// A policy of a namespace with these rules.
pub(super) fn policy(namespace: &str, name: &str, rules: &Value) -> Value {
    json!({"apiVersion": "egress.rs/v1alpha1", "kind": "EgressNetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": {"egress": rules}})
}

/// Conditions of an object's status, by type.
pub(super) fn conditions(object: &Value) -> HashMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().map(|one| (text(&one["type"]), (text(&one["status"]), text(&one["reason"])))).collect()
}
