//! Children that do not outlive their parent, however it ends.
//!
//! The kernel can send a signal to a process when its parent dies, but a process has to ask for it itself, between
//! fork and exec. So a tied child starts as a copy of this executable with a hidden command: it asks, sees that the
//! parent is still there, and becomes the program by exec, with the same process id.
//!
//! The kernel's "parent" is the thread that forked: spawn from a thread that lives as long as the process. A program
//! that gains privileges by its file (set-user-ID, file capabilities) loses the tie at exec.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The hidden command of `ringway`; its arguments are the parent's process id, the program, the program's own.
pub const COMMAND: &str = "exec-tied";

/// A command that runs `program` tied to this process: SIGTERM when this process is gone.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).arg(std::process::id().to_string()).arg("--").arg(program);
    command
}

/// What the hidden command does. Returns only if it cannot become the program.
pub fn exec(parent: u32, program: &OsStr, arguments: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // It may have died before we asked; then nobody will tell us.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get());
    if now != i32::try_from(parent).ok() {
        return io::Error::other("the parent process is gone");
    }
    Command::new(program).args(arguments).exec()
}
