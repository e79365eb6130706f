//! The `egress-agent` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    egress_agent::cli::main()
}
