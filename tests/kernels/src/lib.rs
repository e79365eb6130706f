//! What a kernel's verifier makes of each eBPF program: how many instructions it walked, or why it refused.
//!
//! Each program is loaded on its own, so that one refusal does not hide the others. `cargo xtask kernels` runs the
//! binary of this package as a static program inside other kernels; nothing is attached and nothing is pinned.

use std::path::Path;

use anyhow::Context as _;
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use serde::Serialize;

/// One program and the kernel's opinion of it.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Its name in the object.
    pub name: String,
    /// Instructions that the verifier walked (Linux 5.16; commit aba64c7da983); 0 when it was refused.
    pub instructions: u32,
    /// Bytes of machine code.
    pub machine_code: u32,
    /// How long loading took, in microseconds.
    pub load_micros: u64,
    /// Why the kernel refused it.
    pub refusal: Option<String>,
}

/// Loads every program of the object at `path`.
pub fn verify_all(path: &Path) -> anyhow::Result<Vec<Verified>> {
    let object = std::fs::read(path).with_context(|| format!("cannot read the eBPF object {}", path.display()))?;
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(&object)
        .context("the maps of the object cannot be created")?;
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names.iter().map(|name| verify(&mut ebpf, name)).collect()
}

fn verify(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Verified> {
    let program = ebpf.program_mut(name).context("a program vanished from its object")?;
    let started = std::time::Instant::now();
    let loaded = load(program);
    let load_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut verified =
        Verified { name: name.to_owned(), instructions: 0, machine_code: 0, load_micros, refusal: loaded.err() };
    if verified.refusal.is_none() {
        let info = program.info().with_context(|| format!("the kernel says nothing about {name}"))?;
        verified.instructions = info.verified_instruction_count().unwrap_or(0);
        verified.machine_code = info.size_jitted();
    }
    Ok(verified)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "aya has some thirty program types and the datapath uses three")]
fn load(program: &mut Program) -> Result<(), String> {
    let loaded = match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        other => {
            return Err(format!("a program of type {:?} is not one that the datapath has", other.prog_type()));
        }
    };
    loaded.map_err(|error| reason(&error))
}

/// The error and the end of the verifier's log: the instruction that it refused stands last.
fn reason(error: &ProgramError) -> String {
    const LINES: usize = 25;
    let mut text = error.to_string();
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
        text = format!("{io_error}\n{}", tail.join("\n"));
    }
    text
}
