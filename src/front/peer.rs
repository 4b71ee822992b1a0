//! What the kernel says of the process at the other end of a socket beside its uid and gid: its other groups, and the
//! systemd unit it runs in. Asked once, when the connection is taken; what cannot be learnt is not there.
//!
//! This room must not know: what anybody may do by that.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use uapi::c;

use super::unit;
use crate::model::{Origin, Unit};

/// Supplementary groups that are asked for first, and at most. A process with more has none here: a list cut short could
/// miss the one that counts, and each connection keeps its own.
const GROUPS: [usize; 2] = [32, 1024];
/// What is read of a file below `/proc`, in bytes. The lines that count come well before that.
const PROC_BYTES: u64 = 64 << 10;

/// What is to be known of the peer of this socket.
pub(super) fn origin(socket: &impl AsFd) -> Origin {
    let socket = socket.as_fd();
    Origin { groups: groups(socket), unit: unit(socket) }
}

/// The groups it had when it connected: `SO_PEERGROUPS`.
fn groups(socket: BorrowedFd<'_>) -> Vec<u32> {
    for room in GROUPS {
        let mut groups = vec![0; room];
        match uapi::getsockopt(socket.as_raw_fd(), c::SOL_SOCKET, c::SO_PEERGROUPS, &mut groups[..]) {
            Ok(bytes) => {
                groups.truncate(bytes / size_of::<u32>());
                groups.sort_unstable();
                return groups;
            }
            Err(error) if error.0 == c::ERANGE => {}
            Err(_) => break,
        }
    }
    Vec::new()
}

/// The unit it runs in. The process is held by a pidfd (`SO_PEERPIDFD`), so that no other can take its number meanwhile.
fn unit(socket: BorrowedFd<'_>) -> Unit {
    read_unit(socket).unwrap_or_default()
}

fn read_unit(socket: BorrowedFd<'_>) -> Option<Unit> {
    let mut raw: c::c_int = -1;
    uapi::getsockopt(socket.as_raw_fd(), c::SOL_SOCKET, c::SO_PEERPIDFD, &mut raw).ok()?;
    let pidfd = uapi::OwnedFd::new(raw);
    let pid = unit::pid_of(&text_of(&format!("/proc/self/fdinfo/{raw}"))?)?;
    let cgroups = text_of(&format!("/proc/{pid}/cgroup"))?;
    // It still lives: the number was its own when the file was read.
    is_alive(pidfd.as_fd()).then(|| unit::of_cgroups(&cgroups))
}

/// A pidfd can be read from when its process has ended.
fn is_alive(pidfd: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec::default())) == Ok(0)
}

fn text_of(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(PROC_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process_with_its_groups() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        own.sort_unstable();
        assert_eq!(groups(one.as_fd()), own);
    }

    #[test]
    fn the_unit_of_this_process_is_what_its_cgroup_says() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = unit::of_cgroups(&std::fs::read_to_string("/proc/self/cgroup").unwrap());
        let told = unit(one.as_fd());
        // Linux 6.5 is the first that hands out a pidfd.
        assert!(told == own || told == Unit::Untold && !hands_out_pidfds(&one), "{told:?}, not {own:?}");
    }

    fn hands_out_pidfds(socket: &UnixStream) -> bool {
        let mut raw: c::c_int = -1;
        let told = uapi::getsockopt(socket.as_raw_fd(), c::SOL_SOCKET, c::SO_PEERPIDFD, &mut raw).is_ok();
        drop(told.then(|| uapi::OwnedFd::new(raw)));
        told
    }

    #[test]
    fn of_a_peer_that_has_ended_there_is_no_unit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut curl = std::process::Command::new("curl");
        let mut client = curl.arg("-s").arg("--unix-socket").arg(&path).arg("http://keyway/").spawn().unwrap();
        let (socket, _) = listener.accept().unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
        assert_eq!(unit(socket.as_fd()), Unit::Untold);
    }
}
