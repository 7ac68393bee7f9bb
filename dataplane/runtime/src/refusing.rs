//! Calls of io_uring that the kernel refuses, for tests of what becomes of a program then.
//!
//! A seccomp filter has each such call of one thread, and of every process that is started from it, decided by a closure:
//! the third one can be refused, or all from some moment on, with any error. Compiled for the tests of this crate, and for
//! those of others with the feature `refusing`, which no program turns on. It is here because it is unsafe code.

use std::{
    io,
    mem::zeroed,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    panic::resume_unwind,
    sync::mpsc,
    thread,
};

/// A system call of io_uring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// `io_uring_setup`.
    Setup,
    /// `io_uring_register`.
    Register,
    /// `io_uring_enter`.
    Enter,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 3] = [Call::Setup, Call::Register, Call::Enter];

    fn number(self) -> u32 {
        let number = match self {
            Call::Setup => libc::SYS_io_uring_setup,
            Call::Register => libc::SYS_io_uring_register,
            Call::Enter => libc::SYS_io_uring_enter,
        };
        number as u32
    }
}

/// Runs `start` on a thread of its own. About each `call` that it makes, or a process that it starts, `decide` is asked,
/// which gets their count so far: `None` lets the call pass, `Some` is the number of the error that it fails with.
pub fn refusing<T: Send>(
    call: Call,
    decide: impl FnMut(u64) -> Option<i32> + Send + 'static,
    start: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    // Not started from the thread below, or the filter would be its own, too, and never out of use.
    thread::spawn(move || receiver.recv().map(|listener| answer(&listener, decide)));
    let limited = move || {
        let listener = filter(call)?;
        // Who answers waits for it.
        let _ = sender.send(listener);
        Ok(start())
    };
    thread::scope(|scope| scope.spawn(limited).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Has this thread ask whoever listens about each `call` from here on.
fn filter(call: Call) -> io::Result<OwnedFd> {
    const NUMBER_OFFSET: u32 = 0;
    let (load, is, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let step = |code: u32, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(load, NUMBER_OFFSET, 0, 0),
        step(is, call.number(), 0, 1),
        step(answer, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: no memory arguments.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the program and its steps live through the call; the kernel keeps a copy.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    match i32::try_from(listener) {
        // SAFETY: the kernel has just made this descriptor for the caller, and nobody else knows it.
        Ok(listener @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers until nobody is left who could ask.
fn answer(listener: &OwnedFd, mut decide: impl FnMut(u64) -> Option<i32>) {
    let raw = listener.as_raw_fd();
    for count in 0.. {
        let mut waited_on = libc::pollfd { fd: raw, events: libc::POLLIN, revents: 0 };
        // SAFETY: one record that lives through the call.
        while unsafe { libc::poll(&raw mut waited_on, 1, -1) } < 0 {}
        if waited_on.revents & libc::POLLIN == 0 {
            return;
        }
        // SAFETY: all zeros is a valid value of this record of numbers.
        let mut asked: libc::seccomp_notif = unsafe { zeroed() };
        // SAFETY: a record of the size that this request is for, exclusively borrowed for the call.
        if unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) } < 0 {
            // Whoever asked was killed meanwhile.
            continue;
        }
        let (error, flags) = match decide(count) {
            Some(error) => (-error, 0),
            None => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let mut reply = libc::seccomp_notif_resp { id: asked.id, val: 0, error, flags };
        // SAFETY: as above. It fails when nobody waits for the answer any more.
        unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut reply) };
    }
}
