//! `egress-agent run`: checks the machine, opens the datapath, starts the reconciler, the watchers, the event reader and the
//! servers, and waits for signals.
//!
//! Threads: the reconciler owns all inputs and the only way to change the kernel; watchers only wake it; the main thread runs the
//! event reader and the signals. Ending leaves the kernel enforcing (§6.5).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use egress_policy::compile::Limits;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::api::{self, Socket};
use crate::cli::{Failure, RunArgs};
use crate::datapath::{self, Applied, Capacity, Datapath, DatapathError, Desired, Options};
use crate::discovery::kubepods::Kubepods;
use crate::discovery::{self, Discovery};
use crate::events::{self, FlowLog, Names, Target};
use crate::kube::{Service, Settings};
use crate::metrics;
use crate::names::{self, NameReport};
use crate::reconcile::{self, Kernel, Origin, Outcome, Planner, Reconciler, Sources, StatusFile, Wake, Work};
use crate::report::Round;
use crate::sources::cluster::{Feed, version1_roots};
use crate::sources::watch::{Targets, Watcher};
use crate::sources::{ClusterSource, EndpointSource, PolicySource, node, policies, read_regular};
use crate::startup::{self, Lock};
use crate::status::node_name;
use crate::vitals::{Place, Totals, Vitals};

/// How often what was observed under Audit is stored.
const SAVE: Duration = Duration::from_secs(10);

/// The datapath, shared with the event reader, which needs names for its numbers.
struct SharedDatapath {
    datapath: Arc<Mutex<Datapath>>,
    names: Names,
    dns: names::Service,
    vitals: Arc<Vitals>,
}

impl Kernel for SharedDatapath {
    fn apply(&mut self, desired: &Desired) -> Result<Applied, DatapathError> {
        let mut desired = desired.clone();
        self.dns.number(&mut desired);
        let mut datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = datapath.apply(&desired)?;
        self.dns.follow(&desired);
        self.names.note(&datapath, &desired);
        self.vitals.applied(&applied);
        Ok(applied)
    }

    fn names(&self) -> NameReport {
        self.dns.report()
    }
}

/// Enforces until a signal ends it.
pub(crate) fn run(arguments: &RunArgs) -> Result<(), Failure> {
    let files = if arguments.cluster.kubernetes { None } else { Some(Files::check(arguments)?) };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    // From here on a signal waits for its turn instead of ending the process in the middle of something.
    let signals = Signals::new(&runtime).map_err(Failure::runtime)?;
    let cgroup_root = startup::check(&arguments.bpffs, arguments.cgroup_root.as_deref()).map_err(Failure::runtime)?;
    let _state = Lock::take(&arguments.state_dir).map_err(Failure::runtime)?;
    let _pins = Lock::take(&arguments.bpffs).map_err(Failure::runtime)?;
    let listeners = runtime.block_on(Listeners::bind(arguments)).map_err(Failure::runtime)?;
    let mut datapath = Datapath::open(&options(arguments, cgroup_root.clone())).map_err(Failure::runtime)?;
    datapath.tell_allowed(arguments.flow_log_allowed).map_err(Failure::runtime)?;
    let ring = datapath.take_events().map_err(Failure::runtime)?;
    let (wake, wakes) = mpsc::channel();
    let names_changed = wake.clone();
    let names_changed = Box::new(move || {
        let _ = names_changed.send(Wake::Names);
    });
    let (dns, dns_thread) =
        names::Service::start(&datapath, &arguments.state_dir, names_changed).map_err(Failure::runtime)?;
    let datapath = Arc::new(Mutex::new(datapath));
    let names = Names::new(Arc::clone(&datapath), dns.directory().clone());

    // Watching begins before the first reading, so that no change falls between the two.
    let watcher = watch(files.as_ref(), &wake).map_err(Failure::runtime)?;
    let node = arguments.node_name.clone().unwrap_or_else(node_name);
    let input = match files {
        Some(files) => Input::Files(files),
        None => Input::Cluster(Cluster::follow(arguments, &node, &cgroup_root, &wake)?),
    };
    let cluster = input.cluster();
    let place = Place { node: &node, bpffs: &arguments.bpffs, state_dir: &arguments.state_dir };
    let vitals = Arc::new(Vitals::new(&place, Arc::clone(&datapath), watcher.health()));
    vitals.know_names(dns.directory());
    vitals.know_cluster(cluster.map(|cluster| cluster.service.health()));
    let kernel =
        SharedDatapath { datapath: Arc::clone(&datapath), names: names.clone(), dns, vitals: Arc::clone(&vitals) };
    let mut reconciler =
        reconciler(arguments, input.origin(arguments), cgroup_root, kernel).map_err(Failure::runtime)?;
    if cluster.is_none() {
        let first = reconciler.round(Work::ALL);
        vitals.ended(&first);
        ready(&first.map_err(Failure::runtime)?);
    }
    let (ended, reconciler_ended) = oneshot::channel();
    let rounds = cluster.map(|cluster| cluster.rounds.clone());
    let thread = follow(reconciler, wakes, Arc::clone(&vitals), rounds, ended).map_err(Failure::runtime)?;
    let result = runtime.block_on(async {
        crate::kernel_log::follow(&mut datapath.lock().unwrap_or_else(PoisonError::into_inner));
        let _socket = listeners.serve(&vitals);
        let reader = events::Reader::new(ring, names, FlowLog::new(flow_log(arguments)), Arc::clone(&vitals))?;
        tokio::spawn(save_now_and_then(Arc::clone(&vitals)));
        serve(reader, signals, &watcher, reconciler_ended).await
    });
    vitals.save();
    // An apply that has begun is finished: half of one would leave work for the next agent.
    let _ = wake.send(Wake::Stop);
    let finished = thread.join();
    // The reconciler had the last handle of the names.
    let _ = dns_thread.join();
    runtime.shutdown_background();
    result.map_err(Failure::runtime)?;
    finished.map_err(|_| Failure::runtime("the reconciler died; this is a bug, please report it with the log"))?;
    info!("stopped; the kernel keeps enforcing");
    Ok(())
}

/// Removes everything that an agent has pinned and attached.
pub(crate) fn cleanup(arguments: &RunArgs) -> Result<(), Failure> {
    startup::check_privileges().map_err(Failure::runtime)?;
    if !arguments.bpffs.exists() {
        info!(bpffs = %arguments.bpffs.display(), "nothing to remove");
        return Ok(());
    }
    let _pins = Lock::take(&arguments.bpffs).map_err(Failure::runtime)?;
    let cgroup_root = arguments.cgroup_root.clone().unwrap_or_default();
    let removed = datapath::cleanup(&options(arguments, cgroup_root)).map_err(Failure::runtime)?;
    // The counters that they go on from are gone.
    Totals::forget(&arguments.state_dir).map_err(Failure::runtime)?;
    info!(links = removed.links, pins = removed.pins, "removed; nothing is enforced any more");
    Ok(())
}

fn options(arguments: &RunArgs, cgroup_root: PathBuf) -> Options {
    Options {
        bpffs: arguments.bpffs.clone(),
        cgroup_root,
        capacity: Capacity {
            endpoints: arguments.max_endpoints,
            tables: arguments.max_tables,
            rule_counters: arguments.max_rule_counters,
            flows: arguments.max_flows,
            ..Capacity::default()
        },
    }
}

/// What the arguments name, checked to be there at the start. Later absences are problems in the status.
struct Files {
    policies: PathBuf,
    endpoints: PathBuf,
    config: Option<PathBuf>,
}

impl Files {
    fn check(arguments: &RunArgs) -> Result<Self, Failure> {
        let missing = || Failure::usage("--policies and --endpoints are required");
        let policies = arguments.policies.clone().ok_or_else(missing)?;
        let endpoints = arguments.endpoints.clone().ok_or_else(missing)?;
        policies::check_folder(&policies).map_err(|error| {
            let folder = policies.display();
            Failure::usage(format!(
                "--policies: the folder {folder} cannot be read: {error}; create it, it may be empty"
            ))
        })?;
        readable("--endpoints", &endpoints, "create it with `endpoints: []` if there are none yet")?;
        if let Some(config) = &arguments.config {
            readable("--config", config, "create it, or leave --config out")?;
        }
        Ok(Self { policies, endpoints, config: arguments.config.clone() })
    }
}

fn readable(option: &str, path: &Path, advice: &str) -> Result<(), Failure> {
    read_regular(path).map(drop).map_err(|error| {
        Failure::usage(format!("{option}: the file {} cannot be read: {error}; {advice}", path.display()))
    })
}

fn watch(files: Option<&Files>, wake: &Sender<Wake>) -> io::Result<Watcher> {
    let named = files.map(|files| [Some(files.endpoints.clone()), files.config.clone()]);
    let named = named.into_iter().flatten().flatten();
    let targets = Targets {
        folder: files.map(|files| files.policies.clone()),
        files: named.chain([node::RESOLV_CONF.into()]).collect(),
    };
    let files_changed = wake.clone();
    let watcher = Watcher::start(&targets, move |told| {
        files_changed.send(if told { Wake::Files } else { Wake::Rescan }).is_ok()
    })?;
    let links_changed = wake.clone();
    discovery::links::follow(move || links_changed.send(Wake::Links).is_ok())?;
    Ok(watcher)
}

/// What speaks to the API server, and what watches kubelet's cgroups.
struct Cluster {
    service: Service,
    feed: Feed,
    kubepods: Kubepods,
    /// What rounds did, for the status of the cluster's objects.
    rounds: watch::Sender<Option<Round>>,
}

impl Cluster {
    fn follow(arguments: &RunArgs, node: &str, cgroup_root: &Path, wake: &Sender<Wake>) -> Result<Self, Failure> {
        // A root that was given is looked at alone.
        let beside = match &arguments.cgroup_root {
            Some(_) => Vec::new(),
            None => version1_roots(&std::fs::read_to_string("/proc/self/mountinfo").map_err(Failure::runtime)?),
        };
        let kubepods = Kubepods::new(cgroup_root.to_path_buf(), beside, arguments.cluster.kubepods.as_deref());
        let pods_changed = wake.clone();
        discovery::pod_watch::follow(kubepods.clone(), move || pods_changed.send(Wake::Links).is_ok())
            .map_err(Failure::runtime)?;
        let settings = Settings {
            kubeconfig: arguments.cluster.kubeconfig.clone(),
            node: node.to_owned(),
            compat: arguments.cluster.compat.clone(),
            slices: arguments.cluster.endpoint_slices,
            remove_taint: arguments.cluster.remove_taint,
        };
        let feed = Feed::default();
        let view_changed = wake.clone();
        let (rounds, reported) = watch::channel(None);
        let service = Service::start(settings, feed.clone(), reported, move || {
            let _ = view_changed.send(Wake::Rescan);
        });
        Ok(Self { service: service.map_err(Failure::usage)?, feed, kubepods, rounds })
    }
}

/// What says which policies and pods there are.
enum Input {
    Files(Files),
    Cluster(Cluster),
}

impl Input {
    fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Files(_) => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }

    fn origin(&self, arguments: &RunArgs) -> Origin {
        let state_dir = &arguments.state_dir;
        match self {
            Self::Files(files) => Origin::Files {
                policies: Box::new(PolicySource::new(&files.policies, files.config.as_deref(), state_dir)),
                endpoints: EndpointSource::new(&files.endpoints, state_dir),
            },
            Self::Cluster(Cluster { feed, kubepods, .. }) => {
                let compat = &arguments.cluster.compat;
                Origin::Cluster(Box::new(ClusterSource::new(feed.clone(), kubepods.clone(), compat, state_dir)))
            }
        }
    }
}

fn reconciler(
    arguments: &RunArgs,
    origin: Origin,
    cgroup_root: PathBuf,
    kernel: SharedDatapath,
) -> io::Result<Reconciler<SharedDatapath>> {
    let planner = Planner::new(Limits::default(), arguments.events_per_second, origin.last_good());
    let sources = Sources { origin, discovery: Discovery::new(cgroup_root)? };
    Ok(Reconciler::new(sources, planner, kernel, StatusFile::new(&arguments.state_dir)))
}

fn ready(outcome: &Outcome) {
    info!(
        generation = outcome.generation,
        endpoints = outcome.status.endpoints,
        policies = outcome.status.policies,
        enforced = outcome.status.enforced,
        held = outcome.status.held,
        problems = outcome.status.problems.len(),
        "ready"
    );
}

/// Where the agent answers. Made before the first round, so that whoever finds it ready finds it listening.
struct Listeners {
    socket: Socket,
    local: UnixListener,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(arguments: &RunArgs) -> io::Result<Self> {
        let told = |what: String| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        let path = arguments.socket_path();
        let (socket, local) =
            Socket::bind(&path).map_err(told(format!("cannot listen on {} (--socket)", path.display())))?;
        let metrics = match arguments.metrics_address {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(told(format!("cannot listen on {address} (--metrics-address)")))?)
            }
            None => None,
        };
        Ok(Self { socket, local, metrics })
    }

    /// Begins to answer. The socket is there as long as what is returned.
    fn serve(self, vitals: &Arc<Vitals>) -> Socket {
        tokio::spawn(api::serve(self.local, Arc::clone(vitals)));
        if let Some(listener) = self.metrics {
            tokio::spawn(metrics::serve(listener, Arc::clone(vitals)));
        }
        self.socket
    }
}

/// What was observed survives a kill but for the last seconds.
async fn save_now_and_then(vitals: Arc<Vitals>) {
    let mut ticks = interval(SAVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let vitals = Arc::clone(&vitals);
        let _ = tokio::task::spawn_blocking(move || vitals.save()).await;
    }
}

fn flow_log(arguments: &RunArgs) -> Target {
    match &arguments.flow_log {
        Some(path) if path.as_os_str() == "-" => Target::Stdout,
        path => Target::File {
            path: path.clone().unwrap_or_else(|| arguments.state_dir.join("events.jsonl")),
            size: arguments.flow_log_size,
            kept: arguments.flow_log_files,
        },
    }
}

/// Runs the reconciler on a thread of its own; `waiting`: whether its first round is still to come; `ended` is dropped when it stops for whatever reason.
fn follow(
    mut reconciler: Reconciler<SharedDatapath>,
    wakes: Receiver<Wake>,
    vitals: Arc<Vitals>,
    rounds: Option<watch::Sender<Option<Round>>>,
    ended: oneshot::Sender<()>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("reconcile".into()).spawn(move || {
        let _ended = ended;
        let mut waiting = rounds.is_some();
        reconcile::follow(&mut reconciler, &wakes, |round| {
            vitals.ended(round);
            if let (Some(rounds), Ok(outcome)) = (&rounds, round) {
                rounds.send_if_modified(|last| {
                    let news = *last != outcome.report;
                    last.clone_from(&outcome.report);
                    news
                });
            }
            if let Ok(outcome) = round
                && std::mem::take(&mut waiting)
            {
                ready(outcome);
            }
        });
    })
}

/// The signals that the agent listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new(runtime: &Runtime) -> io::Result<Self> {
        let _inside = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Reads events and handles signals until one says to end.
async fn serve(
    reader: events::Reader,
    mut signals: Signals,
    watcher: &Watcher,
    mut reconciler_ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let mut reader = std::pin::pin!(reader.run());
    let mut reading = true;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hangup.recv() => {
                info!("reading everything again");
                watcher.rescan();
            }
            result = &mut reader, if reading => {
                reading = false;
                error!(?result, "events are not read any more; enforcement goes on");
            }
            _ = &mut reconciler_ended => return Ok(()),
        }
    }
}
