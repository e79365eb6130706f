//! The loaded programs, and the object they come from.

use std::collections::HashMap;
use std::fs;
use std::num::NonZero;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use aya::programs::{Program, ProgramError, TcAttachType};
use aya::{Btf, Ebpf, EbpfLoader};
use egress_common::abi::map;

use super::error::DatapathError;
use super::links::Direction;
use super::pins::Pins;
use super::{Capacity, counters, inner, maps};

/// Programs at the cgroup root.
pub(super) const SOCKET_HOOKS: [&str; 4] = ["connect4", "connect6", "sendmsg4", "sendmsg6"];
/// Programs on the host side of a pod's interface.
pub(super) const TC_HOOKS: [(&str, TcAttachType); 2] =
    [("tc_from_pod", TcAttachType::Ingress), ("tc_to_pod", TcAttachType::Egress)];
/// Programs on the cgroup of a pod without such an interface.
pub(super) const CGROUP_HOOKS: [(&str, Direction); 2] =
    [("cg_egress", Direction::Egress), ("cg_ingress", Direction::Ingress)];

/// The program that stores addresses for the agent; attached nowhere.
pub(super) const LEARN: &str = "learn";

/// All programs, those first that the verifier takes longest for, so that the last one to end is a short one.
const LOADED: [&str; 9] =
    ["tc_from_pod", "cg_egress", "tc_to_pod", "cg_ingress", "sendmsg6", "connect6", "sendmsg4", "connect4", LEARN];

/// What the verifier and the JIT made of a program.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProgramFigures {
    /// Name of the program.
    pub name: String,
    /// Instructions that the verifier walked; 0 where the kernel does not say.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

/// The programs, loaded and bound to the pinned maps.
pub struct Programs {
    ebpf: Ebpf,
}

impl Programs {
    /// Loads the object. Maps that are pinned are used, the others made and pinned.
    pub(super) fn load(pins: &Pins, capacity: &Capacity) -> Result<Self, DatapathError> {
        pins.create()?;
        inner::create_outer(pins, capacity.tables)?;
        let btf = Btf::from_sys_fs().ok();
        let mut loader = EbpfLoader::new();
        loader.btf(btf.as_ref());
        for name in map::ALL {
            loader.map_pin_path(name, pins.map(name));
        }
        loader
            .map_max_entries(map::ENDPOINTS, capacity.endpoints)
            .map_max_entries(map::ENDPOINT_IDS, capacity.endpoints.saturating_mul(4))
            .map_max_entries(map::TABLE_INFO, capacity.tables)
            .map_max_entries(map::TABLES4, capacity.tables)
            .map_max_entries(map::TABLES6, capacity.tables)
            .map_max_entries(map::CLASSES, capacity.tables)
            .map_max_entries(map::NAME_LEAVES, capacity.tables)
            .map_max_entries(map::RULE_COUNTERS, counters::entries(capacity.rule_counters)?)
            .map_max_entries(map::FLOWS, capacity.flows);
        let mut programs = Self { ebpf: loader.load(crate::EBPF_OBJECT)? };
        programs.load_all()?;
        maps::endpoint_names(pins, maps::entries(pins, map::ENDPOINTS)?)?;
        Ok(programs)
    }

    /// Loads every program, several at once: the verifier takes a processor for each, and half a second for all of them.
    fn load_all(&mut self) -> Result<(), DatapathError> {
        let mut programs: HashMap<&str, &mut Program> = self.ebpf.programs_mut().collect();
        let mut waiting = Vec::new();
        for name in LOADED {
            waiting.push((name, programs.remove(name).ok_or(DatapathError::Missing(name))?));
        }
        let waiting = Mutex::new(waiting.into_iter());
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((name, program)) = next() {
                load(name, program)?;
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(LOADED.len());
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            helpers.into_iter().fold(own, |result, helper| {
                result.and(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })
    }

    /// The program `name`, as its type.
    pub(super) fn get<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, DatapathError>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
        program.try_into().map_err(DatapathError::program(name))
    }

    /// The program that stores addresses, by a descriptor of its own.
    pub(super) fn learn(&self) -> Result<OwnedFd, DatapathError> {
        let program = self.ebpf.program(LEARN).ok_or(DatapathError::Missing(LEARN))?;
        let fd = program.fd().map_err(DatapathError::program(LEARN))?;
        fd.as_fd()
            .try_clone_to_owned()
            .map_err(DatapathError::path("duplicating the descriptor of", PathBuf::from(LEARN)))
    }

    /// What the verifier and the JIT made of each program.
    pub fn figures(&self) -> Result<Vec<ProgramFigures>, DatapathError> {
        let mut figures = Vec::new();
        for (name, program) in self.ebpf.programs() {
            let info = program.info().map_err(DatapathError::program("info"))?;
            figures.push(ProgramFigures {
                name: name.to_owned(),
                verified_instructions: info.verified_instruction_count().unwrap_or(0),
                jited_bytes: info.size_jitted(),
            });
        }
        figures.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(figures)
    }

    /// The loaded programs, for tests that run them by `BPF_PROG_TEST_RUN`.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn load(name: &'static str, program: &mut Program) -> Result<(), DatapathError> {
    let loaded = if let Program::CgroupSockAddr(program) = program {
        program.load()
    } else if let Program::SchedClassifier(program) = program {
        program.load()
    } else if let Program::CgroupSkb(program) = program {
        program.load()
    } else {
        return Err(DatapathError::Missing(name));
    };
    loaded.map_err(DatapathError::program(name))
}

/// Removes the pins of other ABI versions. Their programs are no longer attached.
pub(super) fn remove_other_versions(pins: &Pins) -> Result<(), DatapathError> {
    for folder in pins.other_versions() {
        tracing::info!(folder = %folder.display(), "removing the maps of another version");
        super::pins::remove_all(&folder)?;
    }
    if fs::exists(pins.root()).unwrap_or(false) { Ok(()) } else { pins.create() }
}
