//! The pods that run on this node, as kubelet's cgroups show them: pod UID → directory → a process in its network namespace.
//!
//! Both drivers (`kubepods/burstable/pod<uid>`, `kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`), every class of service,
//! any prefix, cgroup v2 alone or beside v1. No container runtime is asked: whatever it names its directories, processes are in them.
//! Invariant: only pods of this node's kubelet; where several kubelets share one hierarchy, a process of this node tells which is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::cgroup::is_version2;

/// Below the root of a hierarchy, kubelet's directory is at most this deep (its `--cgroup-root`, and a runtime's slice above it).
const DEEPEST_ROOT: usize = 4;
/// Below a pod's directory, processes are at most this deep: container, and what a container makes in its own.
const DEEPEST_PROCESS: usize = 4;
/// Directories in which others than kubelet decide about names.
const OTHERS: [&str; 4] = ["user.slice", "machine.slice", "system.slice", "init.scope"];

/// Pods by the UID that their cgroups have.
pub(crate) type Pods = BTreeMap<String, PodCgroup>;

/// A pod's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodCgroup {
    /// Its directory in cgroup v2, if it has one there.
    pub(crate) path: Option<PathBuf>,
    /// A process in a network namespace that is not the agent's own; none as long as no such process is there.
    pub(crate) process: Option<u32>,
    /// Whether there is any process.
    pub(crate) populated: bool,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) pods: Pods,
    /// Kubelet's directory in cgroup v2, which all of its pods are in.
    pub(crate) directory: Option<PathBuf>,
    /// Whether these are known to be the pods of this node. If not, a pod that the API server does not know may be another node's.
    pub(crate) own: bool,
    /// Why nothing, or not enough, could be seen.
    pub(crate) problem: Option<String>,
}

/// Looks at kubelet's cgroups.
#[derive(Clone, Debug)]
pub(crate) struct Kubepods {
    /// Roots of hierarchies: v2 first.
    hierarchies: Vec<PathBuf>,
    /// Kubelet's directory below each of them, if it was given.
    given: Option<PathBuf>,
    /// A process of this node: the agent's own.
    own_process: u32,
}

impl Kubepods {
    /// `version2`: the root of cgroup v2. `beside`: roots of v1 hierarchies, asked for processes only.
    pub(crate) fn new(version2: PathBuf, beside: Vec<PathBuf>, given: Option<&Path>) -> Self {
        let given = given.map(|path| path.strip_prefix("/").unwrap_or(path).to_path_buf());
        let hierarchies = [vec![version2], beside].concat();
        Self { hierarchies, given, own_process: std::process::id() }
    }

    /// The pods as they are now.
    pub(crate) fn look(&self) -> Sighting {
        let (roots, own, problem) = self.roots();
        let own_namespace = inode("/proc/self/ns/net");
        let mut pods = Pods::new();
        for root in &roots {
            for (uid, directory) in pod_directories(root) {
                let pod: &mut PodCgroup = pods.entry(uid).or_default();
                let processes = processes(&directory, DEEPEST_PROCESS);
                pod.populated |= !processes.is_empty();
                let elsewhere = |pid: &&u32| {
                    let namespace = inode(&format!("/proc/{pid}/ns/net"));
                    namespace.is_some() && namespace != own_namespace
                };
                pod.process = pod.process.or_else(|| processes.iter().find(elsewhere).copied());
                if pod.path.is_none() && is_version2(&directory) {
                    pod.path = Some(directory);
                }
            }
        }
        let directory = roots.into_iter().find(|root| is_version2(root));
        Sighting { pods, directory, own, problem }
    }

    /// Every directory in which something may change when a pod comes, goes, or gets a container.
    pub(crate) fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories: BTreeSet<PathBuf> = self.hierarchies.first().cloned().into_iter().collect();
        for root in self.roots().0 {
            directories.extend(classes(&root));
            directories.extend(pod_directories(&root).into_iter().map(|(_, directory)| directory));
            directories.insert(root);
        }
        directories
    }

    /// Kubelet's directories, whether they are this node's for sure, and what is wrong.
    fn roots(&self) -> (Vec<PathBuf>, bool, Option<String>) {
        if let Some(given) = &self.given {
            let roots: Vec<PathBuf> = self.hierarchies.iter().map(|root| root.join(given)).collect();
            let roots: Vec<PathBuf> = roots.into_iter().filter(|root| root.is_dir()).collect();
            let problem = roots.is_empty().then(|| format!("there is no cgroup {}", given.display()));
            return (roots, true, problem);
        }
        let found: Vec<(PathBuf, PathBuf)> =
            self.hierarchies.iter().flat_map(|hierarchy| kubepods_below(hierarchy)).collect();
        let kubelets: BTreeSet<&Path> = found.iter().map(|(_, below)| below.as_path()).collect();
        let chosen: Option<PathBuf> = match kubelets.len() {
            0 => return (Vec::new(), true, Some("no cgroup of kubelet (kubepods) is there yet".to_owned())),
            1 => kubelets.first().map(|below| below.to_path_buf()),
            _ => found.iter().find(|(root, _)| self.is_in(root)).map(|(_, below)| below.clone()),
        };
        let Some(chosen) = chosen else {
            let names: Vec<String> = kubelets.iter().map(|below| below.display().to_string()).collect();
            let message = format!(
                "several kubelets share the cgroup hierarchy ({}), and the agent is a pod of none of them",
                names.join(", ")
            );
            return (found.into_iter().map(|(root, _)| root).collect(), false, Some(message));
        };
        (found.into_iter().filter(|(_, below)| *below == chosen).map(|(root, _)| root).collect(), true, None)
    }

    fn is_in(&self, root: &Path) -> bool {
        pod_directories(root)
            .iter()
            .any(|(_, directory)| processes(directory, DEEPEST_PROCESS).contains(&self.own_process))
    }
}

fn inode(path: &str) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn subdirectories(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

/// Kubelet's directories in a hierarchy: where they are, and the same below the hierarchy's root.
fn kubepods_below(hierarchy: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    let mut level = vec![hierarchy.to_path_buf()];
    for _ in 0..DEEPEST_ROOT {
        let mut next = Vec::new();
        for (name, path) in level.iter().flat_map(|directory| subdirectories(directory)) {
            if name == "kubepods" || name == "kubepods.slice" || name.ends_with("-kubepods.slice") {
                let below = path.strip_prefix(hierarchy).unwrap_or(&path).to_path_buf();
                found.push((path, below));
            } else if !OTHERS.contains(&name.as_str()) && uid(&name).is_none() {
                next.push(path);
            }
        }
        level = next;
    }
    found
}

/// The directories of the classes of service; guaranteed pods are in `root` itself.
fn classes(root: &Path) -> Vec<PathBuf> {
    let is_class = |name: &str| {
        let name = name.strip_suffix(".slice").unwrap_or(name);
        ["burstable", "besteffort"]
            .iter()
            .any(|class| name == *class || name.strip_suffix(class).is_some_and(|rest| rest.ends_with("kubepods-")))
    };
    subdirectories(root).into_iter().filter(|(name, _)| is_class(name)).map(|(_, path)| path).collect()
}

fn pod_directories(root: &Path) -> Vec<(String, PathBuf)> {
    let parents = [vec![root.to_path_buf()], classes(root)].concat();
    let directories = parents.iter().flat_map(|parent| subdirectories(parent));
    directories.filter_map(|(name, path)| Some((uid(&name)?, path))).collect()
}

/// The UID in the name of a pod's directory. Slices have underscores in place of hyphens, which in their names are levels.
fn uid(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => {
            slice.rsplit_once("kubepods").and_then(|(_, rest)| rest.rsplit_once("-pod"))?.1.replace('_', "-")
        }
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let fits = uid.len() >= 16 && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    fits.then_some(uid)
}

/// The processes in `directory` and below, the oldest first: the one that holds a pod's namespaces starts first and ends last.
fn processes(directory: &Path, depth: usize) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    // Processes outside of the agent's view of processes read as 0.
    let mut processes: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid != 0).collect();
    if depth > 0 {
        processes.extend(subdirectories(directory).iter().flat_map(|(_, path)| self::processes(path, depth - 1)));
    }
    processes.sort_unstable();
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c5b4f6e-1d2c-4e5f-8a9b-0123456789ab";
    const STATIC: &str = "0123456789abcdef0123456789abcdef";

    /// A hierarchy of plain files; process 0 stands for none.
    fn hierarchy(pods: &[(&str, u32)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, process) in pods {
            fs::create_dir_all(root.path().join(path)).unwrap();
            fs::write(root.path().join(path).join("cgroup.procs"), format!("{process}\n")).unwrap();
        }
        root
    }

    fn look(root: &tempfile::TempDir, given: Option<&str>) -> Sighting {
        Kubepods::new(root.path().to_path_buf(), Vec::new(), given.map(Path::new)).look()
    }

    #[test]
    fn pods_of_every_class_and_both_drivers_are_found_below_any_prefix() {
        let slice = UID.replace('-', "_");
        let paths = [
            format!("kubepods/pod{UID}/c1"),
            format!("kubepods/burstable/pod{UID}/c1"),
            format!("kubepods/besteffort/pod{UID}/c1"),
            format!("node-a/kubepods/besteffort/pod{UID}/c1/nested"),
            format!("kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-c1.scope"),
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/crio-c1.scope"),
            format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/crio-c1.scope/container"
            ),
            format!(
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{slice}.slice/cri-containerd-c1.scope"
            ),
        ];
        for path in paths {
            let seen = look(&hierarchy(&[(&path, 1)]), None);
            assert_eq!((seen.pods.keys().collect::<Vec<_>>(), seen.own), (vec![&UID.to_owned()], true), "{path}");
            assert!(seen.pods[UID].populated, "{path}");
        }
        let seen = look(&hierarchy(&[(&format!("kubepods/burstable/pod{STATIC}"), 0)]), None);
        assert!(!seen.pods[STATIC].populated, "a static pod is named by its file's hash");
    }

    #[test]
    fn directories_of_others_are_no_pods() {
        let slice = UID.replace('-', "_");
        for path in [
            format!("user.slice/kubepods/pod{UID}"),
            format!("system.slice/kubepods-pod{slice}.slice"),
            format!("kubepods/other/pod{UID}"),
            "kubepods/podman".to_owned(),
            format!("machine.slice/libpod-{UID}"),
        ] {
            let seen = look(&hierarchy(&[(&path, 1)]), None);
            assert_eq!(seen.pods, Pods::new(), "{path}");
        }
    }

    #[test]
    fn of_two_kubelets_the_one_that_the_agent_runs_under_counts() {
        let own = std::process::id();
        let other = UID.replace('0', "f");
        let (ours, theirs) = (format!("a/kubepods/burstable/pod{UID}/c"), format!("b/kubepods/burstable/pod{other}/c"));
        let seen = look(&hierarchy(&[(&ours, own), (&theirs, 1)]), None);
        assert_eq!((seen.pods.keys().collect::<Vec<_>>(), seen.own), (vec![&UID.to_owned()], true));
        let unknown = look(&hierarchy(&[(&ours, 1), (&theirs, 1)]), None);
        assert_eq!((unknown.pods.len(), unknown.own), (2, false), "nobody's pods are held");
        assert!(unknown.problem.unwrap().contains("several kubelets"));
        let given = look(&hierarchy(&[(&ours, 1), (&theirs, 1)]), Some("/b/kubepods"));
        assert_eq!((given.pods.keys().collect::<Vec<_>>(), given.own), (vec![&other], true));
    }

    #[test]
    fn a_process_that_is_seen_only_in_version_1_is_found_beside_the_directory_in_version_2() {
        let version2 = hierarchy(&[(&format!("kubepods/pod{UID}"), 0)]);
        let version1 = hierarchy(&[(&format!("kubepods/pod{UID}/c"), 1)]);
        let beside = vec![version1.path().to_path_buf()];
        let seen = Kubepods::new(version2.path().to_path_buf(), beside, None).look();
        assert!(seen.pods[UID].populated);
    }

    #[test]
    fn what_must_be_watched_is_every_directory_in_which_a_pod_or_a_container_may_appear() {
        let root = hierarchy(&[(&format!("kubepods/burstable/pod{UID}/c"), 1), ("kubepods/besteffort", 0)]);
        let kubepods = Kubepods::new(root.path().to_path_buf(), Vec::new(), None);
        let below = |path: &str| root.path().join(path);
        let expected: BTreeSet<PathBuf> = [
            below("").components().collect(),
            below("kubepods"),
            below("kubepods/besteffort"),
            below("kubepods/burstable"),
            below(&format!("kubepods/burstable/pod{UID}")),
        ]
        .into();
        assert_eq!(kubepods.directories(), expected);
    }
}
