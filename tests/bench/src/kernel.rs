//! The `bpf(2)` commands that the measurements need and the product does not: small programs from raw instructions, maps of
//! the kernel's own kinds beside ours, links whose program is exchanged between rounds, test runs. All `unsafe` of `bpf(2)` is here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Numbers of `enum bpf_cmd`, include/uapi/linux/bpf.h.
mod command {
    pub(super) const MAP_CREATE: libc::c_long = 0;
    pub(super) const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub(super) const MAP_UPDATE_ELEM: libc::c_long = 2;
    pub(super) const PROG_LOAD: libc::c_long = 5;
    pub(super) const OBJ_GET: libc::c_long = 7;
    pub(super) const PROG_TEST_RUN: libc::c_long = 10;
    pub(super) const MAP_GET_FD_BY_ID: libc::c_long = 14;
    pub(super) const MAP_UPDATE_BATCH: libc::c_long = 26;
    pub(super) const LINK_CREATE: libc::c_long = 28;
    pub(super) const LINK_UPDATE: libc::c_long = 29;
}

const MAP_TYPE_LPM_TRIE: u32 = 11;
const MAP_NO_PREALLOC: u32 = 1;
const PROGRAM_SCHED_CLS: u32 = 3;
const ATTACH_TCX_EGRESS: u32 = 47;
/// `sizeof(struct __sk_buff)` and the place of `ifindex` in it.
const SKB_WORDS: usize = 48;
const SKB_IFINDEX: usize = 10;

/// One eBPF instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
pub(crate) struct Instruction {
    /// Operation.
    pub(crate) code: u8,
    /// Source register above, destination register below.
    pub(crate) registers: u8,
    /// Offset of a jump or a memory access.
    pub(crate) offset: i16,
    /// Immediate.
    pub(crate) immediate: i32,
}

/// Key of an LPM trie of IPv4 prefixes.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
pub(crate) struct PrefixKey {
    /// Length of the prefix.
    pub(crate) length: u32,
    /// Its address, in network order.
    pub(crate) address: [u8; 4],
}

fn bpf<A: IntoBytes + FromBytes>(call: &'static str, number: libc::c_long, attributes: &mut A) -> anyhow::Result<i32> {
    let size = size_of::<A>();
    // SAFETY: the kernel reads and writes `size` bytes of the attributes; every pointer in them comes from a live reference.
    let result = unsafe { libc::syscall(libc::SYS_bpf, number, attributes.as_mut_bytes().as_mut_ptr(), size) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()).context(call),
    }
}

fn bpf_fd<A: IntoBytes + FromBytes>(
    call: &'static str,
    number: libc::c_long,
    attributes: &mut A,
) -> anyhow::Result<OwnedFd> {
    let descriptor = bpf(call, number, attributes)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).addr() as u64
}

fn raw(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}

/// Loads a classifier from instructions.
pub(crate) fn load_classifier(instructions: &[Instruction]) -> anyhow::Result<OwnedFd> {
    #[repr(C)]
    #[derive(IntoBytes, FromBytes)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }
    let mut log = vec![0_u8; 1 << 16];
    let license = c"Dual MIT/GPL";
    let mut attributes = Attributes {
        kind: PROGRAM_SCHED_CLS,
        count: u32::try_from(instructions.len())?,
        instructions: address(instructions),
        license: address(license),
        log_level: 1,
        log_size: u32::try_from(log.len())?,
        log: log.as_mut_ptr().addr() as u64,
    };
    bpf_fd("BPF_PROG_LOAD", command::PROG_LOAD, &mut attributes)
        .with_context(|| String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned())
}

/// Makes an LPM trie of IPv4 prefixes to 32-bit values.
pub(crate) fn create_trie(entries: u32) -> anyhow::Result<OwnedFd> {
    #[repr(C)]
    #[derive(IntoBytes, FromBytes)]
    struct Attributes {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
    }
    let mut attributes =
        Attributes { kind: MAP_TYPE_LPM_TRIE, key: 8, value: 4, entries: entries.max(1), flags: MAP_NO_PREALLOC };
    bpf_fd("BPF_MAP_CREATE", command::MAP_CREATE, &mut attributes)
}

/// Fills a trie with one call.
pub(crate) fn fill_trie(trie: BorrowedFd<'_>, keys: &[PrefixKey], values: &[u32]) -> anyhow::Result<()> {
    #[repr(C)]
    #[derive(IntoBytes, FromBytes)]
    struct Attributes {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let count = u32::try_from(keys.len().min(values.len()))?;
    let (keys, values) = (address(keys), address(values));
    let mut attributes =
        Attributes { in_batch: 0, out_batch: 0, keys, values, count, map: raw(trie), element_flags: 0, flags: 0 };
    bpf("BPF_MAP_UPDATE_BATCH", command::MAP_UPDATE_BATCH, &mut attributes).map(|_| ())
}

#[repr(C)]
#[derive(IntoBytes, FromBytes)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes one prefix.
pub(crate) fn set_prefix(trie: BorrowedFd<'_>, key: PrefixKey, value: u32) -> anyhow::Result<()> {
    let mut element = Element { map: raw(trie), padding: 0, key: address(&key), value: address(&value), flags: 0 };
    bpf("BPF_MAP_UPDATE_ELEM", command::MAP_UPDATE_ELEM, &mut element).map(|_| ())
}

/// Opens a pinned map.
pub(crate) fn open_pin(path: &Path) -> anyhow::Result<OwnedFd> {
    #[repr(C)]
    #[derive(IntoBytes, FromBytes)]
    struct Attributes {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { path: address(name.as_c_str()), descriptor: 0, flags: 0 };
    bpf_fd("BPF_OBJ_GET", command::OBJ_GET, &mut attributes).with_context(|| path.display().to_string())
}

/// Opens the map in a slot of an array of maps.
pub(crate) fn inner_map(outer: BorrowedFd<'_>, slot: u32) -> anyhow::Result<OwnedFd> {
    let mut id = 0_u32;
    let value = (&raw mut id).addr() as u64;
    let mut element = Element { map: raw(outer), padding: 0, key: address(&slot), value, flags: 0 };
    bpf("BPF_MAP_LOOKUP_ELEM", command::MAP_LOOKUP_ELEM, &mut element)?;
    // The kernel wrote it behind the compiler's back.
    // SAFETY: a plain word of ours.
    let id = unsafe { (&raw const id).read_volatile() };
    let mut attributes = [id, 0, 0];
    bpf_fd("BPF_MAP_GET_FD_BY_ID", command::MAP_GET_FD_BY_ID, &mut attributes)
}

/// Bytes that the kernel says a map takes.
pub(crate) fn map_memory(map: BorrowedFd<'_>) -> anyhow::Result<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:")).context("fdinfo without memlock")?;
    Ok(line.trim().parse()?)
}

/// Puts a program on the way out of an interface of the calling thread's network namespace (tcx, Linux 6.6).
pub(crate) fn attach_egress(program: BorrowedFd<'_>, interface: u32) -> anyhow::Result<OwnedFd> {
    let mut attributes = [raw(program), interface, ATTACH_TCX_EGRESS, 0, 0, 0, 0, 0];
    bpf_fd("BPF_LINK_CREATE (tcx, Linux 6.6 or later)", command::LINK_CREATE, &mut attributes)
}

/// Lets a link run another program.
pub(crate) fn exchange(link: &OwnedFd, program: BorrowedFd<'_>) -> anyhow::Result<()> {
    let mut attributes = [raw(link.as_fd()), raw(program), 0, 0];
    bpf("BPF_LINK_UPDATE", command::LINK_UPDATE, &mut attributes).map(|_| ())
}

/// What a test run says.
pub(crate) struct Ran {
    /// The last return value.
    pub(crate) returned: u32,
    /// Nanoseconds of one run, as the kernel measured them.
    pub(crate) nanoseconds: u32,
}

/// Runs a classifier `repeat` times on `packet` as if it were on `interface`.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], interface: u32, repeat: u32) -> anyhow::Result<Ran> {
    #[repr(C)]
    #[derive(IntoBytes, FromBytes)]
    struct Attributes {
        program: u32,
        returned: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_size_in: u32,
        context_size_out: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        padding: u32,
    }
    let mut context = [0_u32; SKB_WORDS];
    context[SKB_IFINDEX] = interface;
    let mut attributes = Attributes {
        program: raw(program),
        returned: 0,
        data_size_in: u32::try_from(packet.len())?,
        data_size_out: 0,
        data_in: address(packet),
        data_out: 0,
        repeat,
        duration: 0,
        context_size_in: u32::try_from(size_of_val(&context))?,
        context_size_out: 0,
        context_in: address(&context),
        context_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        padding: 0,
    };
    bpf("BPF_PROG_TEST_RUN", command::PROG_TEST_RUN, &mut attributes)?;
    Ok(Ran { returned: attributes.returned, nanoseconds: attributes.duration })
}
