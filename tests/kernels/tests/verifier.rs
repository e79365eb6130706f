//! The running kernel accepts every program. Other kernels are asked by `cargo xtask kernels`.

use std::path::{Path, PathBuf};

/// Where `cargo xtask build-ebpf` puts the object: `EGRESS_EBPF_OBJECT`, else beside the build that runs.
fn object() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ebpf/egress-ebpf");
    std::env::var_os("EGRESS_EBPF_OBJECT").map_or_else(built, PathBuf::from)
}

#[test]
fn this_kernel_accepts_every_program_and_says_how_many_instructions_it_walked() {
    let programs = egress_kernels::verify_all(&object()).unwrap();
    assert!(!programs.is_empty());
    for program in programs {
        assert_eq!(program.refusal, None, "{}", program.name);
        assert!(program.instructions > 0, "{}", program.name);
    }
}

#[test]
fn an_object_that_is_not_one_is_an_error_and_not_an_empty_list() {
    assert!(egress_kernels::verify_all(Path::new(file!())).is_err());
}
