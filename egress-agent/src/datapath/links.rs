//! Where programs are attached: every link is pinned, and replaced rather than detached, so that a restart opens no gap.
//!
//! tcx links where the kernel has them (6.6), clsact filters with a fixed priority and handle before.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, LinkOrder, ProgramError, SchedClassifier,
    TcAttachType,
};
use aya::sys::SyscallError;
use aya::util::KernelVersion;

use super::error::DatapathError;
use super::pins::{self, Pins};
use super::programs::{CGROUP_HOOKS, Programs, SOCKET_HOOKS, TC_HOOKS};
use super::syscall;
use super::{Cgroup, Interface};

/// Before other filters, so that none of them passes a packet on first.
const CLSACT_PRIORITY: u16 = 1;
/// No flags: a cgroup link always stands beside others (`cgroup_bpf_link_attach`, kernel/bpf/cgroup.c).
const LINK_MODE: CgroupAttachMode = CgroupAttachMode::Single;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0xe9e5);
/// Within this a link that was let go of is gone: tens of milliseconds, unless the machine is very busy.
const LET_GO: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// Attaches the socket hooks at the cgroup root, or lets their links run this agent's programs.
pub(super) fn attach_sockets(pins: &Pins, programs: &mut Programs, root: &Path) -> Result<(), DatapathError> {
    let cgroup = fs::File::open(root).map_err(DatapathError::path("opening", root))?;
    let root_id = fs::metadata(root).map_err(DatapathError::path("reading", root)).map(|meta| inode(&meta))?;
    for name in SOCKET_HOOKS {
        let path = pins.links().join(name);
        let program: &mut CgroupSockAddr = programs.get(name)?;
        let failed = DatapathError::program(name);
        if adopt(&path, program.fd().map_err(&failed)?.as_fd(), root_id, false)? {
            continue;
        }
        let id = program.attach(&cgroup, LINK_MODE).map_err(&failed)?;
        let link: FdLink =
            program.take_link(id).map_err(&failed)?.try_into().map_err(|_| DatapathError::Missing(name))?;
        link.pin(&path)?;
    }
    Ok(())
}

/// Whether programs were attached to an interface of this index. It may be another interface by now, and then has none.
pub(super) fn is_attached(pins: &Pins, interface: &Interface) -> bool {
    TC_HOOKS.iter().all(|(name, _)| tc_pin(pins, interface.index, name).exists())
}

/// Attaches both directions of an endpoint's interface.
pub(super) fn attach_interface(
    pins: &Pins,
    programs: &mut Programs,
    interface: &Interface,
) -> Result<(), DatapathError> {
    for (name, direction) in TC_HOOKS {
        let path = tc_pin(pins, interface.index, name);
        let program: &mut SchedClassifier = programs.get(name)?;
        if has_tcx() {
            attach_tcx(program, name, direction, interface, &path)?;
        } else {
            attach_clsact(program, name, direction, interface, &path)?;
        }
    }
    Ok(())
}

fn attach_tcx(
    program: &mut SchedClassifier,
    name: &'static str,
    direction: TcAttachType,
    interface: &Interface,
    path: &Path,
) -> Result<(), DatapathError> {
    let failed = DatapathError::program(name);
    if adopt(path, program.fd().map_err(&failed)?.as_fd(), u64::from(interface.index), true)? {
        return Ok(());
    }
    let mut attach =
        || program.attach_with_options(&interface.name, direction, TcAttachOptions::TcxOrder(LinkOrder::first()));
    let id = once_free(&mut attach).map_err(&failed)?;
    let link: FdLink = program.take_link(id).map_err(&failed)?.try_into().map_err(|_| DatapathError::Missing(name))?;
    link.pin(path)?;
    Ok(())
}

/// Attaches, waiting for a link that was let go of, which has no place for the same program beside it (`bpf_mprog_attach`,
/// kernel/bpf/mprog.c). It may outlive its pin: kernels before October 2025 drop what a pin held after a grace period only (`bpf_free_inode`,
/// kernel/bpf/inode.c), and a process that is just being forked has copies of our descriptors.
fn once_free<T>(attach: &mut dyn FnMut() -> Result<T, ProgramError>) -> Result<T, ProgramError> {
    let started = Instant::now();
    loop {
        match attach() {
            Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
                if io_error.kind() == io::ErrorKind::AlreadyExists && started.elapsed() < LET_GO =>
            {
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn attach_clsact(
    program: &mut SchedClassifier,
    name: &'static str,
    direction: TcAttachType,
    interface: &Interface,
    path: &Path,
) -> Result<(), DatapathError> {
    let failed = DatapathError::program(name);
    // Fails where the qdisc is there already, which is as good.
    let _ = tc::qdisc_add_clsact(&interface.name);
    let replaced = SchedClassifierLink::attached(&interface.name, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
        .map_err(DatapathError::path("finding", &interface.name))
        .and_then(|link| program.attach_to_link(link).map_err(&failed));
    let id = if let Ok(id) = replaced {
        id
    } else {
        let options = NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
        program.attach_with_options(&interface.name, direction, TcAttachOptions::Netlink(options)).map_err(&failed)?
    };
    // The filter must outlive this process, as a pinned link does.
    std::mem::forget(program.take_link(id).map_err(&failed)?);
    fs::create_dir_all(path).map_err(DatapathError::path("creating", path))
}

/// Attaches both directions of an endpoint's cgroup.
pub(super) fn attach_cgroup(pins: &Pins, programs: &mut Programs, cgroup: &Cgroup) -> Result<(), DatapathError> {
    let folder = fs::File::open(&cgroup.path).map_err(DatapathError::path("opening", &cgroup.path))?;
    for (name, direction) in CGROUP_HOOKS {
        let path = cgroup_pin(pins, cgroup.id, name);
        let program: &mut CgroupSkb = programs.get(name)?;
        let failed = DatapathError::program(name);
        if adopt(&path, program.fd().map_err(&failed)?.as_fd(), cgroup.id, false)? {
            continue;
        }
        let direction = match direction {
            Direction::Egress => CgroupSkbAttachType::Egress,
            Direction::Ingress => CgroupSkbAttachType::Ingress,
        };
        let id = program.attach(&folder, direction, LINK_MODE).map_err(&failed)?;
        let link: FdLink =
            program.take_link(id).map_err(&failed)?.try_into().map_err(|_| DatapathError::Missing(name))?;
        link.pin(&path)?;
    }
    Ok(())
}

/// Which way packets go, seen from the pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    /// The pod sends.
    Egress,
    /// The pod receives.
    Ingress,
}

/// Lets a pinned link run `program`, if it still holds on to `target`; a link whose target is gone is unpinned.
fn adopt(path: &Path, program: BorrowedFd<'_>, target: u64, is_tc: bool) -> Result<bool, DatapathError> {
    let Some(link) = syscall::open_pin(path)? else {
        return Ok(false);
    };
    if syscall::link_target(link.as_fd(), is_tc)? == target {
        syscall::replace_program(link.as_fd(), program)?;
        return Ok(true);
    }
    pins::unpin(path)?;
    Ok(false)
}

/// Detaches whatever is attached to interfaces and cgroups that are not in `interfaces` and `cgroups`.
pub(super) fn detach_others(pins: &Pins, interfaces: &[u32], cgroups: &[u64]) -> Result<usize, DatapathError> {
    let keep = |path: &PathBuf, ids: &[u64]| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.split('-').next().and_then(|id| id.parse().ok()).is_some_and(|id| ids.contains(&id))
    };
    let interfaces: Vec<u64> = interfaces.iter().copied().map(u64::from).collect();
    let mut detached = 0;
    for (folder, ids) in [("tc", interfaces.as_slice()), ("cgroup", cgroups)] {
        for path in pins::entries(&pins.links().join(folder)) {
            if !keep(&path, ids) {
                detach(&path)?;
                detached += 1;
            }
        }
    }
    Ok(detached)
}

/// Detaches everything.
pub(super) fn detach_all(pins: &Pins) -> Result<usize, DatapathError> {
    let mut detached = detach_others(pins, &[], &[])?;
    for name in SOCKET_HOOKS {
        let path = pins.links().join(name);
        if path.exists() {
            detach(&path)?;
            detached += 1;
        }
    }
    Ok(detached)
}

fn detach(path: &Path) -> Result<(), DatapathError> {
    if path.is_dir() {
        return detach_clsact(path);
    }
    // A link lives as long as its pin and its descriptors; another agent's descriptor must not keep it attached.
    match PinnedLink::from_pin(path) {
        Ok(link) => link.unpin().map(drop).map_err(DatapathError::path("unpinning", path)),
        Err(_) => pins::unpin(path),
    }
}

fn detach_clsact(path: &Path) -> Result<(), DatapathError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (index, hook) = name.split_once('-').unwrap_or_default();
    let direction = TC_HOOKS.iter().find(|(name, _)| *name == hook).map(|(_, direction)| *direction);
    let interface = index.parse().ok().and_then(interface_name);
    if let (Some(direction), Some(interface)) = (direction, interface) {
        // Dropping the link detaches it; an interface that is gone took its filters along.
        if let Ok(link) = SchedClassifierLink::attached(&interface, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None) {
            drop(link);
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Path { action: "removing", path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

fn interface_name(index: u32) -> Option<String> {
    nix::net::if_::if_nameindex()
        .ok()?
        .iter()
        .find(|interface| interface.index() == index)
        .map(|interface| interface.name().to_string_lossy().into_owned())
}

fn tc_pin(pins: &Pins, index: u32, hook: &str) -> PathBuf {
    pins.links().join("tc").join(format!("{index}-{hook}"))
}

fn cgroup_pin(pins: &Pins, id: u64, hook: &str) -> PathBuf {
    pins.links().join("cgroup").join(format!("{id}-{hook}"))
}

fn inode(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.ino()
}

/// tcx came with Linux 6.6.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}
