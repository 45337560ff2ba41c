//! Hearing that a supervisor wants this process to end.
//!
//! Invariant: from the call on SIGTERM does not end the process by itself; who is told sees to it. Left out: other signals.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Has a thread call this at the first SIGTERM.
///
/// # Errors
/// The system's, if signals cannot be caught or a thread cannot be started.
pub fn when_told(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let mut asked = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate())?
    };
    let name = "mobula-sigterm".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(asked.recv());
        tell();
    })?;
    Ok(())
}
