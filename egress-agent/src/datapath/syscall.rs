//! The few `bpf(2)` commands that aya does not offer. All `unsafe` of the agent's datapath is here, in `mapped` and in `chunks`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::maps::MapData;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::error::DatapathError;

// Numbers of include/uapi/linux/bpf.h, enum bpf_cmd.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// Runs one `bpf(2)` command. `attributes` is the head of `union bpf_attr`; the kernel takes the rest as zero.
fn bpf<A: IntoBytes + Immutable>(
    call: &'static str,
    command: libc::c_long,
    attributes: &A,
) -> Result<i32, DatapathError> {
    // SAFETY: the kernel reads `size` bytes of the attributes; every pointer in them is made from a live reference by the callers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_bytes().as_ptr(), size_of::<A>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(DatapathError::Syscall { call, source: io::Error::last_os_error() }),
    }
}

fn address<T>(value: *const T) -> u64 {
    value.addr() as u64
}

/// A descriptor as attributes and maps of maps have it.
pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Opens a pinned link, map or program. `None` if there is no such pin.
pub(super) fn open_pin(path: &Path) -> Result<Option<OwnedFd>, DatapathError> {
    #[repr(C)]
    #[derive(IntoBytes, Immutable)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| DatapathError::Path {
        action: "opening",
        path: path.to_path_buf(),
        source: error.into(),
    })?;
    match bpf("BPF_OBJ_GET", BPF_OBJ_GET, &Attributes { path: address(name.as_ptr()), fd: 0, flags: 0 }) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(DatapathError::Syscall { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs a program once on `data` and returns its return value.
pub(super) fn test_run(program: BorrowedFd<'_>, data: &[u8]) -> Result<u32, DatapathError> {
    #[repr(C)]
    #[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
    struct Attributes {
        program: u32,
        result: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }
    let mut attributes = Attributes {
        program: raw(program),
        result: 0,
        data_size_in: u32::try_from(data.len()).unwrap_or(u32::MAX),
        data_size_out: 0,
        data_in: address(data.as_ptr()),
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: as in `bpf`; the kernel also writes the result into the attributes, which are ours.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, attributes.as_mut_bytes().as_mut_ptr(), size_of::<Attributes>())
    };
    if result < 0 {
        return Err(DatapathError::Syscall { call: "BPF_PROG_TEST_RUN", source: io::Error::last_os_error() });
    }
    Ok(attributes.result)
}

/// Makes an array of maps whose members are like `inner`.
///
/// Not left to aya, which would give the model of the inner map type information: Linux 6.1 takes a map without it for another kind
/// of map (`bpf_map_meta_equal` compares `timer_off`), and the agent's tables have none.
pub(super) fn create_array_of_maps(name: &str, inner: &MapData, entries: u32) -> Result<OwnedFd, DatapathError> {
    const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
    #[repr(C)]
    #[derive(IntoBytes, Immutable)]
    struct Attributes {
        kind: u32,
        key_size: u32,
        value_size: u32,
        entries: u32,
        flags: u32,
        inner: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut attributes = Attributes {
        kind: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        entries,
        flags: 0,
        inner: raw(inner.fd().as_fd()),
        numa_node: 0,
        name: [0; 16],
    };
    attributes.name.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    let fd = bpf("BPF_MAP_CREATE", BPF_MAP_CREATE, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a map, link or program.
pub(super) fn pin(object: &OwnedFd, path: &Path) -> Result<(), DatapathError> {
    #[repr(C)]
    #[derive(IntoBytes, Immutable)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| DatapathError::Path {
        action: "pinning",
        path: path.to_path_buf(),
        source: error.into(),
    })?;
    let attributes = Attributes { path: address(name.as_ptr()), fd: raw(object.as_fd()), flags: 0 };
    bpf("BPF_OBJ_PIN", BPF_OBJ_PIN, &attributes).map(|_| ())
}

/// The key after `key`, or the first one. `None` after the last.
pub(super) fn next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    key_size: usize,
) -> Result<Option<Vec<u8>>, DatapathError> {
    #[repr(C)]
    #[derive(IntoBytes, Immutable)]
    struct Attributes {
        map: u32,
        padding: u32,
        key: u64,
        next: u64,
    }
    let mut next = vec![0_u8; key_size];
    // No key asks for the first one.
    let from = key.filter(|key| key.len() == key_size).map_or(0, |key| address(key.as_ptr()));
    let attributes = Attributes { map: raw(map), padding: 0, key: from, next: next.as_mut_ptr().addr() as u64 };
    match bpf("BPF_MAP_GET_NEXT_KEY", BPF_MAP_GET_NEXT_KEY, &attributes) {
        Ok(_) => Ok(Some(next)),
        Err(DatapathError::Syscall { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value of a key: `bytes` of them, which must be what the map gives. `None` if the key is not there.
pub(super) fn lookup(map: BorrowedFd<'_>, key: &[u8], bytes: usize) -> Result<Option<Vec<u8>>, DatapathError> {
    #[repr(C)]
    #[derive(IntoBytes, Immutable)]
    struct Attributes {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut value = vec![0_u8; bytes];
    let attributes = Attributes {
        map: raw(map),
        padding: 0,
        key: address(key.as_ptr()),
        value: value.as_mut_ptr().addr() as u64,
        flags: 0,
    };
    match bpf("BPF_MAP_LOOKUP_ELEM", BPF_MAP_LOOKUP_ELEM, &attributes) {
        Ok(_) => Ok(Some(value)),
        Err(DatapathError::Syscall { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Counts the keys of a map, `most` at most: where entries come and go meanwhile, the kernel may begin again.
pub(super) fn count_keys(map: &aya::maps::MapFd, key_size: u32, most: u32) -> Result<u32, DatapathError> {
    let size = usize::try_from(key_size).unwrap_or(usize::MAX);
    let mut key: Option<Vec<u8>> = None;
    for count in 0..most {
        key = next_key(map.as_fd(), key.as_deref(), size)?;
        if key.is_none() {
            return Ok(count);
        }
    }
    Ok(most)
}

/// Atomically lets a link run another program: no packet meets neither of them.
pub(super) fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), DatapathError> {
    #[repr(C)]
    #[derive(IntoBytes, Immutable)]
    struct Attributes {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let attributes = Attributes { link: raw(link), program: raw(program), flags: 0, old_program: 0 };
    bpf("BPF_LINK_UPDATE", BPF_LINK_UPDATE, &attributes).map(|_| ())
}

/// What a link is attached to: the interface index of a tcx link, the cgroup id of a cgroup link; 0 if that is gone.
pub(super) fn link_target(link: BorrowedFd<'_>, is_tc: bool) -> Result<u64, DatapathError> {
    #[repr(C)]
    #[derive(IntoBytes, Immutable)]
    struct Attributes {
        fd: u32,
        length: u32,
        info: u64,
    }
    /// Head of `struct bpf_link_info`; the target follows the three common words and a padding.
    #[repr(C)]
    #[derive(Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
    struct LinkInfo {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        target: [u32; 2],
        rest: [u64; 8],
    }
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).unwrap_or(0);
    let attributes = Attributes { fd: raw(link), length, info: address(&raw mut info) };
    bpf("BPF_OBJ_GET_INFO_BY_FD", BPF_OBJ_GET_INFO_BY_FD, &attributes)?;
    let [low, high] = info.target;
    Ok(if is_tc { u64::from(low) } else { u64::from(low) | u64::from(high) << 32 })
}

/// One element of a map.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn new<K: IntoBytes + Immutable>(map: BorrowedFd<'_>, key: &K, value: u64) -> Self {
        Self { map: raw(map), padding: 0, key: address(key), value, flags: 0 }
    }
}

/// Deletes a map element. `false` if it was not there.
pub(super) fn delete<K: IntoBytes + Immutable>(map: BorrowedFd<'_>, key: &K) -> Result<bool, DatapathError> {
    match bpf("BPF_MAP_DELETE_ELEM", BPF_MAP_DELETE_ELEM, &Element::new(map, key, 0)) {
        Ok(_) => Ok(true),
        Err(DatapathError::Syscall { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a map element.
pub(super) fn update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> Result<(), DatapathError>
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    bpf("BPF_MAP_UPDATE_ELEM", BPF_MAP_UPDATE_ELEM, &Element::new(map, key, address(value))).map(|_| ())
}

/// Many elements of a map.
#[repr(C)]
#[derive(Default, IntoBytes, FromBytes, Immutable)]
struct Elements {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes many elements with one call.
pub(super) fn update_batch<K, V>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> Result<(), DatapathError>
where
    K: IntoBytes + Immutable,
    V: IntoBytes + Immutable,
{
    let count = u32::try_from(keys.len().min(values.len()))
        .map_err(|error| DatapathError::Syscall { call: "BPF_MAP_UPDATE_BATCH", source: io::Error::other(error) })?;
    if count == 0 {
        return Ok(());
    }
    let attributes = Elements {
        keys: address(keys.as_ptr()),
        values: address(values.as_ptr()),
        count,
        map: raw(map),
        ..Elements::default()
    };
    bpf("BPF_MAP_UPDATE_BATCH", BPF_MAP_UPDATE_BATCH, &attributes).map(|_| ())
}
