//! What the cluster last said, kept for a start of the agent while the API server is away: `last-good/cluster.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use egress_policy::model::{NodeInfo, ServicePort};
use egress_policy::ranges::Ranges;
use egress_policy::selector::Labels;
use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::kube::{Internal, Pod, View};

use super::folder::{FileText, Text};

/// Version of the file's layout.
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    version: u32,
    texts: Vec<(String, String)>,
    foreign: BTreeMap<String, Vec<(String, String)>>,
    namespaces: BTreeMap<String, Labels>,
    nodes: Vec<NodeInfo>,
    internal: Internal,
    dns: Vec<IpAddr>,
    services: Vec<ServicePort>,
    pods: Vec<Pod>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Stored {
    path: PathBuf,
    last: Option<File>,
}

impl Stored {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("last-good/cluster.json"), last: None }
    }

    /// What an agent stored, if it can be read.
    pub(super) fn load(&self) -> Option<View> {
        let file: File = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        (file.version == VERSION).then(|| file.view())
    }

    /// Stores what is not stored yet.
    pub(super) fn save(&mut self, view: &View) -> io::Result<()> {
        let file = File::of(view);
        if self.last.as_ref() == Some(&file) {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        atomic_file::write(&self.path, &serde_json::to_vec(&file)?)?;
        self.last = Some(file);
        Ok(())
    }
}

fn written(texts: &[FileText]) -> Vec<(String, String)> {
    let readable = texts.iter().filter_map(|file| Some((file.name.clone(), file.text.as_ref().ok()?.body.clone())));
    readable.collect()
}

fn read(texts: Vec<(String, String)>) -> Vec<FileText> {
    texts.into_iter().map(|(name, body)| FileText { name, text: Ok(Text::new(body)) }).collect()
}

impl File {
    fn of(view: &View) -> Self {
        let internal: Ranges = view.internal.all().iter().flatten().collect();
        Self {
            version: VERSION,
            texts: written(&view.texts),
            foreign: view.foreign.iter().map(|(kind, texts)| (kind.clone(), written(texts))).collect(),
            namespaces: view.namespaces.clone(),
            nodes: view.nodes.clone(),
            internal: view.internal.clone(),
            dns: view.dns.clone(),
            services: view.services.iter().filter(|service| service.leads_outside(&internal)).cloned().collect(),
            pods: view.pods.clone(),
        }
    }

    fn view(self) -> View {
        View {
            texts: read(self.texts),
            foreign: self.foreign.into_iter().map(|(kind, texts)| (kind, read(texts))).collect(),
            namespaces: self.namespaces,
            node_count: self.nodes.len(),
            nodes: self.nodes,
            internal: self.internal,
            dns: self.dns,
            services: self.services,
            pods: self.pods,
            ..View::default()
        }
    }
}
