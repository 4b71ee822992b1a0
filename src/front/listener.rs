//! Binding a Unix socket: who may find it, what was there before, and whether it can still be found.

use std::ffi::CString;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::passed::Passed;
use crate::config::{Listener, Protocol};
use crate::model::{Fault, PeerCredentials};

/// A socket that is bound, with its owner and mode set. Its file is removed when this is dropped, unless it is another's by
/// then, or whoever passed the socket keeps it.
#[derive(Debug)]
pub(super) struct BoundListener {
    pub(super) socket: UnixListener,
    pub(super) protocol: Protocol,
    allow_uids: Vec<u32>,
    allow_gids: Vec<u32>,
    pub(super) implicit_auth: bool,
    own_uid: u32,
    pub(super) path: PathBuf,
    /// Whether another process has it too, and has set its owner and mode.
    passed: bool,
    /// Device and inode. No other file gets them while the socket is bound.
    file: (u64, u64),
}

impl BoundListener {
    /// The socket passed for it, if there is one; else binds it.
    pub(super) fn open(listener: &Listener, passed: &mut Passed) -> Result<BoundListener, Fault> {
        match passed.at(&listener.address) {
            Some(socket) => BoundListener::take(listener, socket),
            None => BoundListener::bind(listener),
        }
    }

    fn take(listener: &Listener, socket: UnixListener) -> Result<BoundListener, Fault> {
        let path = &listener.address;
        let failed = |what: &str, error: &std::io::Error| Fault::Unavailable {
            what: format!("listener {}: cannot {what}, which was passed to the daemon: {error}", path.display()),
        };
        let found = std::fs::metadata(path).map_err(|error| failed("find the file of its socket", &error))?;
        socket.set_nonblocking(true).map_err(|error| failed("make its socket non-blocking", &error))?;
        tracing::info!(
            address = %path.display(), mode = format!("{:o}", found.mode() & 0o777), uid = found.uid(), gid = found.gid(),
            "the listener's socket was passed to the daemon: its mode and owner are as the socket unit has them"
        );
        Ok(BoundListener::with(listener, socket, true, &found))
    }

    fn with(listener: &Listener, socket: UnixListener, passed: bool, file: &std::fs::Metadata) -> BoundListener {
        BoundListener {
            socket,
            protocol: listener.protocol,
            allow_uids: listener.allow_uids.clone(),
            allow_gids: listener.allow_gids.clone(),
            implicit_auth: listener.implicit_auth,
            own_uid: rustix::process::geteuid().as_raw(),
            path: listener.address.clone(),
            passed,
            file: (file.dev(), file.ino()),
        }
    }

    /// Binds it. A path taken by a live daemon is refused; one left by a dead daemon is replaced.
    pub(super) fn bind(listener: &Listener) -> Result<BoundListener, Fault> {
        let path = listener.address.clone();
        clear_the_way(&path)?;
        // Bound under another name first: nobody can connect before owner and mode are right.
        let early = early_name(&path);
        let _ = std::fs::remove_file(&early);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            let _ = std::fs::remove_file(&early);
            Fault::Unavailable { what: format!("listener {}: cannot {what}: {error}", path.display()) }
        };
        let socket = UnixListener::bind(&early).map_err(|error| failed("bind the socket", &error))?;
        let mode = std::fs::Permissions::from_mode(listener.socket_mode);
        std::fs::set_permissions(&early, mode).map_err(|error| failed("set its mode", &error))?;
        let (uid, gid) = owner(listener).map_err(|why| failed("set its owner", &why))?;
        if uid.is_some() || gid.is_some() {
            std::os::unix::fs::chown(&early, uid, gid).map_err(|error| failed("set its owner", &error))?;
        }
        let file = std::fs::symlink_metadata(&early).map_err(|error| failed("find its file", &error))?;
        socket.set_nonblocking(true).map_err(|error| failed("make it non-blocking", &error))?;
        std::fs::rename(&early, &path).map_err(|error| failed("give it its name", &error))?;
        Ok(BoundListener::with(listener, socket, false, &file))
    }

    /// Whether whoever connects to its path reaches it: its file was not removed, nor another put in its place. Where that
    /// cannot be told, it is.
    pub(super) fn is_found(&self) -> bool {
        match std::fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) == self.file,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Whether this peer may come in here.
    pub(super) fn allows(&self, peer: PeerCredentials) -> bool {
        let open = self.allow_uids.is_empty() && self.allow_gids.is_empty();
        open || peer.uid == 0
            || peer.uid == self.own_uid
            || self.allow_uids.contains(&peer.uid)
            || self.allow_gids.contains(&peer.gid)
    }
}

impl Drop for BoundListener {
    fn drop(&mut self) {
        if !self.passed && self.is_found() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes sure that nothing alive, and nothing but a socket, is at `path`.
fn clear_the_way(path: &Path) -> Result<(), Fault> {
    let refuse = |why: String| Err(Fault::Unavailable { what: format!("listener {}: {why}", path.display()) });
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return refuse(error.to_string()),
    };
    if !found.file_type().is_socket() {
        return refuse("something that is no socket is there; move it away, or choose another address".into());
    }
    match UnixStream::connect(path) {
        Ok(_) => refuse("another process is listening there; stop it, or choose another address".into()),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Err(error) => refuse(format!("cannot tell whether somebody listens there: {error}")),
    }
}

fn early_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

fn owner(listener: &Listener) -> Result<(Option<u32>, Option<u32>), String> {
    let user = listener.socket_user.as_deref().map(|name| id_of(name, "/etc/passwd")).transpose()?;
    let group = listener.socket_group.as_deref().map(|name| id_of(name, "/etc/group")).transpose()?;
    Ok((user, group))
}

/// A numeric id, or the id of a local user or group. Names from elsewhere (LDAP) must be given as numbers.
fn id_of(name: &str, database: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    if CString::new(name).is_err() || name.contains(':') {
        return Err(format!("{name:?} is no name"));
    }
    let entries = std::fs::read_to_string(database).map_err(|error| format!("{database}: {error}"))?;
    let entry = entries.lines().find(|line| line.split(':').next() == Some(name));
    entry
        .and_then(|line| line.split(':').nth(2)?.parse().ok())
        .ok_or_else(|| format!("{name:?} is not in {database}; give its number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(path: &Path) -> Listener {
        Listener {
            address: path.to_owned(),
            protocol: Protocol::Http,
            socket_mode: 0o600,
            socket_user: None,
            socket_group: None,
            allow_uids: Vec::new(),
            allow_gids: Vec::new(),
            implicit_auth: false,
        }
    }

    #[test]
    fn a_socket_of_a_live_daemon_is_refused_and_one_of_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.sock");
        let live = BoundListener::bind(&listener(&path)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = BoundListener::bind(&listener(&path)).unwrap_err();
        assert!(refused.to_string().contains("another process is listening"), "{refused}");
        drop(live);
        assert!(!path.exists(), "the file goes with the listener");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead daemon leaves its file");
        BoundListener::bind(&listener(&path)).unwrap();
    }

    #[test]
    fn a_socket_whose_file_is_gone_knows_it_and_leaves_anothers_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.sock");
        let first = BoundListener::bind(&listener(&path)).unwrap();
        assert!(first.is_found());
        std::fs::remove_file(&path).unwrap();
        assert!(!first.is_found());
        let second = BoundListener::bind(&listener(&path)).unwrap();
        assert!(!first.is_found() && second.is_found());
        drop(first);
        assert!(second.is_found() && UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(BoundListener::bind(&listener(&path)).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn allow_lists_admit_the_listed_and_the_daemons_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = listener(&folder.path().join("k.sock"));
        settings.allow_uids = vec![4242];
        settings.allow_gids = vec![77];
        let bound = BoundListener::bind(&settings).unwrap();
        let peer = |uid, gid| PeerCredentials { uid, gid, pid: None };
        assert!(bound.allows(peer(4242, 1)) && bound.allows(peer(9, 77)) && bound.allows(peer(0, 1)));
        assert!(!bound.allows(peer(4243, 78)));
    }

    #[test]
    fn owners_are_numbers_or_local_names() {
        assert_eq!(id_of("12", "/etc/passwd"), Ok(12));
        assert_eq!(id_of("root", "/etc/passwd"), Ok(0));
        assert!(id_of("nobody-of-this-name", "/etc/passwd").is_err());
    }
}
