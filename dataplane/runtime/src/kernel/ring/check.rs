//! What a ring is tried on before workers rely on one, so that a kernel which promises more than it keeps is found out.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    rc::Rc,
    time::Duration,
};

use super::{
    super::socket::{Receiving, Sending, Watched},
    Ring,
};
use crate::buffer::{Buffer, Gather};

impl Ring {
    /// Does on a pair of sockets what connections will do.
    pub(in super::super) fn check(self) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        self.check_on(ours.into(), theirs.into())
    }

    fn check_on(mut self, ours: OwnedFd, theirs: OwnedFd) -> io::Result<()> {
        let mut one_run = Gather::new();
        one_run.insert(b"ringway");
        // The buffer is full, so the runs are not joined: another operation sends them.
        let (mut two_runs, mut full) = (Gather::new(), Buffer::new(4));
        full.extend(b"ring");
        two_runs.put_buffer(full);
        two_runs.keep(0..4);
        two_runs.insert(b"way");
        let result = self.converse(ours, theirs, [one_run, two_runs]);
        self.end();
        result?;
        if self.in_flight() > 0 {
            Err(broken("an operation does not end when it is told to"))
        } else {
            Ok(())
        }
    }

    fn converse(&mut self, ours: OwnedFd, theirs: OwnedFd, gathers: [Gather; 2]) -> io::Result<()> {
        let (ours, theirs) = (Rc::new(Watched::new(ours)), Rc::new(Watched::new(theirs)));
        self.watch(&ours);
        self.watch(&theirs);
        self.arm_read(&theirs);
        for mut gather in gathers {
            let mut buffer = Buffer::new(16);
            gather.load_vectors();
            self.send(&ours, gather);
            let mut received = None;
            self.turn_until(|ring| {
                received = ring.take(&theirs, &mut buffer);
                received.is_some()
            })?;
            match ours.ring.sending.replace(Sending::No) {
                Sending::Done(7) => {}
                Sending::Done(error @ ..0) => return Err(io::Error::from_raw_os_error(-error)),
                _ => return Err(broken("a send does not send")),
            }
            received.transpose()?;
            if buffer.filled() != b"ringway" {
                return Err(broken("a receive does not get what was sent"));
            }
            if theirs.ring.receiving.get() != Receiving::Armed {
                return Err(broken("a receive does not stay for what follows"));
            }
        }
        self.poll_write(&ours);
        self.turn_until(|_| ours.write.is_ready.get())?;
        if ours.write.is_ready.get() { Ok(()) } else { Err(broken("a poll does not tell what it finds")) }
    }

    /// Turns until this is so, or until it seems that it never will be.
    pub(super) fn turn_until(&mut self, mut is_so: impl FnMut(&mut Ring) -> bool) -> io::Result<()> {
        let mut turns_left = 8;
        while !is_so(self) && turns_left > 0 {
            turns_left -= 1;
            self.wait(Some(Duration::from_millis(100)))?;
        }
        Ok(())
    }
}

fn broken(how: &str) -> io::Error {
    io::Error::other(format!("tried on a pair of sockets, {how}"))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    fn tried(ours: impl Into<OwnedFd>, theirs: impl Into<OwnedFd>) -> String {
        let checked = Ring::new().unwrap().check_on(ours.into(), theirs.into());
        checked.map_or_else(|error| error.to_string(), |()| "well".to_owned())
    }

    #[test]
    fn iu_05_a_kernel_that_promises_more_than_it_keeps_is_found_out() {
        Ring::new().unwrap().check().unwrap();
        let (ours, theirs) = pair();
        assert_eq!(tried(ours, theirs), "well");

        // Sockets that are not what the check takes them for stand for operations that do not do what they say.
        let (ours, _elsewhere) = pair();
        let (theirs, _silent) = pair();
        let lost = "tried on a pair of sockets, a receive does not get what was sent";
        assert_eq!(tried(ours, theirs), lost);

        let (ours, theirs) = pair();
        (&ours).write_all(b"x").unwrap();
        assert_eq!(tried(ours, theirs), lost, "another's bytes");

        // Full, so that a send neither fails nor ends.
        let (ours, theirs) = pair();
        ours.set_nonblocking(true).unwrap();
        while (&ours).write(&[0; 4096]).is_ok() {}
        ours.set_nonblocking(false).unwrap();
        let (other, _silent) = pair();
        assert_eq!(tried(ours, other), "tried on a pair of sockets, a send does not send");
        drop(theirs);

        let (ours, theirs) = pair();
        drop(theirs);
        let (other, _silent) = pair();
        assert!(tried(ours, other).starts_with("Broken pipe"), "a send that fails");

        let (ours, _silent) = pair();
        let (theirs, other) = pair();
        (&other).write_all(b"ringway").unwrap();
        drop(other);
        assert!(tried(ours, theirs).ends_with("a receive does not stay for what follows"));

        let (ours, theirs) = pair();
        drop(ours);
        let (other, _silent) = pair();
        assert!(tried(other, theirs).contains("does not get"), "an end in place of bytes");

        let file = std::fs::File::open("/dev/null").unwrap();
        let (ours, _silent) = pair();
        assert!(tried(ours, file).starts_with("Socket operation on non-socket"), "a receive that fails");
    }
}
