//! Log records of the programs themselves, from an object built with `cargo xtask build-ebpf --debug-log`. Other objects have none.

use aya_log::{EbpfLogger, Error};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::datapath::Datapath;

/// Starts passing on the programs' records, if they write any. Called inside the runtime.
pub(crate) fn follow(datapath: &mut Datapath) {
    let logger = match EbpfLogger::init(datapath.programs_mut().ebpf_mut()) {
        Ok(logger) => logger,
        Err(Error::MapNotFound) => return,
        Err(error) => return tracing::warn!(%error, "the programs' log cannot be read"),
    };
    // SAFETY: the logger owns its ring, so the descriptor stays open and the same as long as it is registered.
    match unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) } {
        Ok(logger) => {
            tokio::spawn(read(logger));
        }
        Err(error) => tracing::warn!(%error, "the programs' log cannot be read"),
    }
}

async fn read(mut logger: AsyncFd<EbpfLogger<&'static dyn log::Log>>) {
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
