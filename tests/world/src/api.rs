//! The read side of an API server, as far as the agent asks: lists and watches of objects that the test puts there, over plain HTTP on
//! the node's loopback interface. It says only what the test lets it say, so that "the API server has not told of it yet" can last.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};

use crate::Namespace;

/// An API server in the network of a world's node.
pub struct Api {
    state: Arc<Mutex<State>>,
    address: String,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Objects by path of their resource and key.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Open watches, by path.
    watches: Vec<(String, TcpStream)>,
}

impl Api {
    /// Serves nothing yet: every list is empty.
    pub fn new(node: &Namespace) -> Self {
        let listener = node.enter(|| TcpListener::bind("127.0.0.1:0")).expect("a port on the node");
        let address = listener.local_addr().expect("its address").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(&state, stream));
            }
        });
        Self { state, address }
    }

    /// Writes the kubeconfig that leads here.
    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let path = folder.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&path, text.to_string()).expect("the kubeconfig");
        path
    }

    /// Adds an object to a resource, such as `/api/v1/pods`, or replaces it, and tells all who watch.
    pub fn put(&self, resource: &str, mut object: Value) {
        let mut state = lock(&self.state);
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let objects = state.objects.entry(resource.to_owned()).or_default();
        let kind = if objects.insert(key(&object), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.tell(resource, kind, &object);
    }

    /// Removes an object, and tells all who watch.
    pub fn delete(&self, resource: &str, object: &Value) {
        let mut state = lock(&self.state);
        state.version += 1;
        let removed = state.objects.get_mut(resource).and_then(|objects| objects.remove(&key(object)));
        let object = removed.expect("an object that is there");
        state.tell(resource, "DELETED", &object);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test thread died with the lock")
}

fn key(object: &Value) -> String {
    format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"])
}

impl State {
    fn tell(&mut self, resource: &str, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        // Whoever has gone is forgotten.
        self.watches.retain_mut(|(path, stream)| path != resource || stream.write_all(chunk.as_bytes()).is_ok());
    }
}

/// Answers requests until the other side hangs up or begins to watch.
fn serve(state: &Mutex<State>, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("the connection"));
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).is_ok_and(|length| length == 0) {
            return;
        }
        let mut header = String::new();
        while reader.read_line(&mut header).is_ok_and(|length| length > 2) {
            header.clear();
        }
        let Some(url) = request.split(' ').nth(1) else { return };
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let mut state = lock(state);
        let answered = if query.contains("watch=true") {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            let answered = writer.write_all(head.as_bytes());
            // What happened between the listing and now.
            let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")?.parse::<u64>().ok());
            let watcher = writer.try_clone().expect("the connection");
            state.watches.push((path.to_owned(), watcher));
            let missed = state.objects.get(path).into_iter().flatten().map(|(_, object)| object.clone());
            let is_missed = |object: &Value| {
                let version = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
                version > since
            };
            let missed: Vec<Value> = missed.filter(is_missed).collect();
            for object in missed {
                state.tell(path, "MODIFIED", &object);
            }
            answered
        } else {
            let items: Vec<&Value> = state.objects.get(path).into_iter().flatten().map(|(_, object)| object).collect();
            let metadata = json!({"resourceVersion": state.version.to_string()});
            let body = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string();
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            writer.write_all(format!("{head}{body}").as_bytes())
        };
        if answered.is_err() {
            return;
        }
    }
}
